//! Scopes: which objects a quota is about.

use serde_json::Value;

use crate::amounts::{Kind, items_at, of};
use crate::names::Measured;
use crate::pods::has_time_limit;

const OF_PODS: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
];
const OF_CLAIMS: &str = "VolumeAttributesClass";

/// One scope, with what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub scope: String,
    /// `Exists`, `DoesNotExist`, `In` or `NotIn`.
    pub operator: String,
    pub values: Vec<String>,
}

/// The scopes of a quota, in both ways they can be said.
pub fn scopes_of(quota: &Value) -> Vec<Requirement> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let plain = items_at(quota, "/spec/scopes").iter().map(|scope| Requirement {
        scope: text(scope),
        operator: "Exists".into(),
        values: Vec::new(),
    });
    let selected = items_at(quota, "/spec/scopeSelector/matchExpressions").iter().map(|it| Requirement {
        scope: text(&it["scopeName"]),
        operator: text(&it["operator"]),
        values: items_at(it, "/values").iter().map(text).collect(),
    });
    plain.chain(selected).collect()
}

/// Whether there is a scope of that name.
pub fn is_scope(name: &str) -> bool {
    OF_PODS.contains(&name) || name == OF_CLAIMS
}

/// Whether objects that use what `name` stands for can be told apart by the scope.
pub fn may_scope(scope: &str, name: &str) -> bool {
    let plural = Measured::by_name(name).filter(|it| it.group.is_empty()).map(|it| it.plural);
    match scope {
        // What asks for nothing can only be counted.
        "BestEffort" => name == "pods",
        OF_CLAIMS => plural.as_deref() == Some("persistentvolumeclaims"),
        _ => plural.as_deref() == Some("pods"),
    }
}

impl Requirement {
    pub(crate) fn takes_in(&self, measured: &Measured, object: &Value) -> bool {
        match (&*measured.group, &*measured.plural) {
            ("", "pods") => self.takes_in_pod(object),
            ("", "persistentvolumeclaims") if self.scope == OF_CLAIMS => {
                let names = ["/spec/volumeAttributesClassName", "/status/currentVolumeAttributesClassName"];
                let status = "/status/modifyVolumeStatus/targetVolumeAttributesClassName";
                let names = names.iter().chain([&status]).filter_map(|it| object.pointer(it)?.as_str());
                let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
                self.chooses(&names)
            }
            _ => false,
        }
    }

    fn takes_in_pod(&self, pod: &Value) -> bool {
        match &*self.scope {
            "Terminating" => has_time_limit(pod),
            "NotTerminating" => !has_time_limit(pod),
            "BestEffort" => asks_for_nothing(pod),
            "NotBestEffort" => !asks_for_nothing(pod),
            "CrossNamespacePodAffinity" => looks_at_other_namespaces(pod),
            "PriorityClass" => {
                let class = pod["spec"]["priorityClassName"].as_str().filter(|class| !class.is_empty());
                self.chooses(class.as_slice())
            }
            _ => false,
        }
    }

    fn chooses(&self, names: &[&str]) -> bool {
        let among = || names.iter().any(|name| self.values.iter().any(|value| value == name));
        match &*self.operator {
            "Exists" => !names.is_empty(),
            "DoesNotExist" => names.is_empty(),
            "In" => among(),
            "NotIn" => !among(),
            _ => false,
        }
    }
}

/// The class `BestEffort` of quality of service.
fn asks_for_nothing(pod: &Value) -> bool {
    let lists = ["/spec/containers", "/spec/initContainers"];
    let containers = lists.iter().flat_map(|list| items_at(pod, list));
    containers.chain([&pod["spec"]]).all(|owner| {
        let mut said = of(owner, Kind::Requests);
        said.extend(of(owner, Kind::Limits));
        !said.iter().any(|(name, amount)| matches!(&**name, "cpu" | "memory") && amount.nanos() > 0)
    })
}

fn looks_at_other_namespaces(pod: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][kind];
        let required = items_at(affinity, "/requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = items_at(affinity, "/preferredDuringSchedulingIgnoredDuringExecution").iter();
        required
            .chain(preferred.map(|weighted| &weighted["podAffinityTerm"]))
            .any(|term| !items_at(term, "/namespaces").is_empty() || term["namespaceSelector"].is_object())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::takes_in;

    #[test]
    fn a_quota_is_about_what_all_its_scopes_take_in() {
        let pods = Measured::new("", "pods");
        let plain = json!({"spec": {"containers": [{"name": "c"}]}});
        let bounded = json!({"spec": {"activeDeadlineSeconds": 9, "priorityClassName": "high", "containers": [
            {"name": "c", "resources": {"limits": {"cpu": "1"}}},
        ]}});
        let quota = |scopes: Value| json!({"spec": {"scopes": scopes}});
        let both = |quota: Value| (takes_in(&quota, &pods, &plain), takes_in(&quota, &pods, &bounded));
        assert_eq!(both(quota(json!([]))), (true, true));
        assert_eq!(both(quota(json!(["BestEffort"]))), (true, false));
        assert_eq!(both(quota(json!(["Terminating", "NotBestEffort"]))), (false, true));
        assert_eq!(both(quota(json!(["Terminating", "BestEffort"]))), (false, false));
        let selector = |operator: &str| {
            json!({"spec": {"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": ["high"]},
            ]}}})
        };
        assert_eq!(both(selector("In")), (false, true));
        assert_eq!(both(selector("NotIn")), (true, false));
        assert!(!takes_in(&quota(json!(["NotTerminating"])), &Measured::new("", "services"), &json!({})));
    }
}
