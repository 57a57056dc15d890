//! What containers and pods ask for and are held to, by resource.

use std::collections::BTreeMap;

use penstock_schema::Quantity;
use serde_json::Value;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

pub(crate) const ONE: Quantity = Quantity::count(1);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Requests,
    Limits,
}

impl Kind {
    pub fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// What something says under `resources`: a container, a pod's spec or a claim's.
pub fn of(owner: &Value, kind: Kind) -> Amounts {
    read(owner["resources"].get(kind.field()))
}

/// A map of quantities. What is none is left out: it was refused where it was written.
pub fn read(map: Option<&Value>) -> Amounts {
    let amounts = map.and_then(Value::as_object).into_iter().flatten();
    amounts.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?)?))).collect()
}

/// As it is written into an object.
pub fn written(amounts: &Amounts) -> Value {
    amounts.iter().map(|(name, amount)| (name.clone(), Value::from(amount.to_string()))).collect()
}

/// As people are told: `cpu=1,memory=2Gi`.
pub fn told(amounts: &Amounts) -> String {
    let each: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    each.join(",")
}

/// What a whole pod asks for or is held to: all that runs beside each other, or more where an init container wants
/// more; what is said of the pod as a whole counts instead.
pub fn of_pod(pod: &Value, kind: Kind) -> Amounts {
    total(pod, kind, |container| of(container, kind))
}

/// As [`of_pod`], with each container's amounts from `of_one`.
pub(crate) fn total(pod: &Value, kind: Kind, of_one: impl Fn(&Value) -> Amounts) -> Amounts {
    let mut total = Amounts::new();
    for container in items_at(pod, "/spec/containers") {
        add(&mut total, &of_one(container));
    }
    // Sidecars run on beside what starts after them.
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in items_at(pod, "/spec/initContainers") {
        let mut own = of_one(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut most, &own);
    }
    raise(&mut total, &most);
    total.extend(of(&pod["spec"], kind));
    total
}

/// Adds up, resource by resource.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = sum.plus(*amount);
    }
}

/// The larger of both, resource by resource.
pub fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let most = to.entry(name.clone()).or_insert(*amount);
        *most = (*most).max(*amount);
    }
}

/// What is more in `after` than in `before`.
pub fn growth(after: &Amounts, before: &Amounts) -> Amounts {
    let grown = after.iter().map(|(name, amount)| {
        let had = before.get(name).copied().unwrap_or(Quantity::ZERO);
        (name.clone(), amount.minus(had))
    });
    grown.filter(|(_, more)| *more > Quantity::ZERO).collect()
}

/// Those of the amounts that are named.
pub fn named<'a>(amounts: &Amounts, names: impl IntoIterator<Item = &'a String>) -> Amounts {
    names.into_iter().filter_map(|name| Some((name.clone(), *amounts.get(name)?))).collect()
}

pub(crate) fn items_at<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_for_what_runs_at_once_or_what_one_init_container_needs() {
        let asks = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = asks("300m");
        sidecar["restartPolicy"] = "Always".into();
        let mut pod = json!({"spec": {
            "containers": [asks("100m"), asks("200m"), {}],
            "initContainers": [asks("500m"), sidecar, asks("400m")],
        }});
        let cpu = |pod: &Value| of_pod(pod, Kind::Requests)["cpu"].to_string();
        assert_eq!(cpu(&pod), "700m", "the last init container beside the sidecar");
        pod["spec"]["initContainers"][2] = asks("1m");
        assert_eq!(cpu(&pod), "600m", "the containers beside the sidecar");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(cpu(&pod), "2");
        assert!(of_pod(&pod, Kind::Limits).is_empty());
    }
}
