//! What a CustomResourceDefinition's status should say: which names it has got, and whether it is served. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::registry::object::{items_at, meta_str, str_at};

/// Names other definitions (and built-in kinds) of the group have.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Plural, singular and short names.
    resources: BTreeSet<String>,
    /// Kinds and list kinds.
    kinds: BTreeSet<String>,
}

impl Taken {
    pub fn resource(&mut self, name: &str) {
        self.resources.insert(name.to_owned());
    }

    pub fn kind(&mut self, name: &str) {
        self.kinds.insert(name.to_owned());
    }

    /// Takes the accepted names of another definition.
    pub fn names_of(&mut self, crd: &Value) {
        let names = &crd["status"]["acceptedNames"];
        for key in ["plural", "singular"] {
            self.resource(str_at(names, &format!("/{key}")));
        }
        items_at(names, "/shortNames").iter().filter_map(Value::as_str).for_each(|name| self.resource(name));
        for key in ["kind", "listKind"] {
            self.kind(str_at(names, &format!("/{key}")));
        }
        self.resources.remove("");
        self.kinds.remove("");
    }
}

/// The status the definition should have. `now` is for conditions that change.
pub(crate) fn plan_status(crd: &Value, taken: &Taken, now: &str) -> Value {
    let wanted = &crd["spec"]["names"];
    let mut status = crd["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let mut names = json!({});
    let mut refusal: Option<(&str, String)> = None;
    for (key, taken, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        let (name, had) = (str_at(wanted, &format!("/{key}")), status["acceptedNames"][key].as_str());
        if name != had.unwrap_or_default() && taken.contains(name) {
            refusal = Some((reason, in_use(name)));
            names[key] = had.unwrap_or_default().into();
        } else {
            names[key] = name.into();
        }
    }
    let had = items_at(&status, "/acceptedNames/shortNames").to_vec();
    let wanted_short = items_at(wanted, "/shortNames");
    let conflicts: Vec<String> = wanted_short
        .iter()
        .filter(|name| !had.contains(name))
        .filter_map(Value::as_str)
        .filter(|name| taken.resources.contains(*name))
        .map(in_use)
        .collect();
    let short = if conflicts.is_empty() { wanted_short.to_vec() } else { had };
    match &conflicts[..] {
        [] => {}
        [one] => refusal = Some(("ShortNamesConflict", one.clone())),
        many => refusal = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    for (key, list) in [("shortNames", short), ("categories", items_at(wanted, "/categories").to_vec())] {
        if !list.is_empty() {
            names[key] = Value::Array(list);
        }
    }
    status["acceptedNames"] = names;
    let established_before = has(crd, "Established");
    match refusal {
        None => {
            set(&mut status, now, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
            let message = "the initial names have been accepted";
            set(&mut status, now, "Established", "True", "InitialNamesAccepted", message);
        }
        Some((reason, message)) => {
            set(&mut status, now, "NamesAccepted", "False", reason, &message);
            if !established_before {
                set(&mut status, now, "Established", "False", "NotAccepted", "not all names are accepted");
            }
        }
    }
    status
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

/// Whether a condition is true.
pub(crate) fn has(crd: &Value, condition: &str) -> bool {
    items_at(crd, "/status/conditions").iter().any(|c| c["type"] == condition && c["status"] == "True")
}

/// Whether the definition is being deleted.
pub(crate) fn is_terminating(crd: &Value) -> bool {
    !meta_str(crd, "deletionTimestamp").is_empty()
}

/// Writes a condition; its time moves only with its status.
pub(crate) fn set(status: &mut Value, now: &str, kind: &str, is: &str, reason: &str, message: &str) {
    let mut conditions = items_at(status, "/conditions").to_vec();
    let mut condition = json!({
        "type": kind, "status": is, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(before) => {
            if before["status"] == is {
                condition["lastTransitionTime"] = before["lastTransitionTime"].clone();
            }
            *before = condition;
        }
        None => conditions.push(condition),
    }
    status["conditions"] = Value::Array(conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": plural}, "spec": {"group": "a.b", "names": {
            "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
            "shortNames": short}}})
    }

    fn condition<'s>(status: &'s Value, kind: &str) -> (&'s str, &'s str) {
        let found = items_at(status, "/conditions").iter().find(|c| c["type"] == kind).unwrap();
        (str_at(found, "/status"), str_at(found, "/reason"))
    }

    #[test]
    fn free_names_are_accepted_and_stay() {
        let mut crd = crd("widgets", "Widget", &["w"]);
        let status = plan_status(&crd, &Taken::default(), "t1");
        assert_eq!(condition(&status, "NamesAccepted"), ("True", "NoConflicts"));
        assert_eq!(condition(&status, "Established"), ("True", "InitialNamesAccepted"));
        assert_eq!(status["acceptedNames"]["shortNames"], json!(["w"]));
        crd["status"] = status.clone();
        assert_eq!(plan_status(&crd, &Taken::default(), "t2"), status, "times move with the status only");
    }

    #[test]
    fn a_name_another_has_is_not_accepted() {
        let mut first = crd("widgets", "Widget", &["w"]);
        first["status"] = plan_status(&first, &Taken::default(), "t");
        let mut taken = Taken::default();
        taken.names_of(&first);
        let second = crd("gadgets", "Widget", &["g"]);
        let status = plan_status(&second, &taken, "t");
        assert_eq!(condition(&status, "NamesAccepted").0, "False");
        assert_eq!(condition(&status, "Established"), ("False", "NotAccepted"));
        let third = plan_status(&crd("gadgets", "Gadget", &["w"]), &taken, "t");
        assert_eq!(condition(&third, "NamesAccepted"), ("False", "ShortNamesConflict"));
        let told = items_at(&third, "/conditions")[0]["message"].clone();
        assert_eq!(told, "\"w\" is already in use");
    }

    #[test]
    fn what_is_established_stays_so_when_a_new_name_is_refused() {
        let mut crd = crd("widgets", "Widget", &[]);
        crd["status"] = plan_status(&crd, &Taken::default(), "t");
        crd["spec"]["names"]["shortNames"] = json!(["x"]);
        let mut taken = Taken::default();
        taken.resource("x");
        let status = plan_status(&crd, &taken, "t2");
        assert_eq!(condition(&status, "NamesAccepted"), ("False", "ShortNamesConflict"));
        assert_eq!(condition(&status, "Established").0, "True");
        assert!(status["acceptedNames"].get("shortNames").is_none());
    }
}
