//! What containers and pods ask for and are held to, by resource.

use std::collections::BTreeMap;

use penstock_schema::Quantity;
use serde_json::Value;

use crate::registry::object::items_at;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

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
    let amounts = owner["resources"][kind.field()].as_object().into_iter().flatten();
    amounts.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?)?))).collect()
}

/// What a whole pod asks for or is held to: all that runs beside each other, or more where an init container wants
/// more; what is said of the pod as a whole counts instead.
pub fn of_pod(pod: &Value, kind: Kind) -> Amounts {
    let mut total = Amounts::new();
    for container in items_at(pod, "/spec/containers") {
        add(&mut total, &of(container, kind));
    }
    // Sidecars run on beside what starts after them.
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in items_at(pod, "/spec/initContainers") {
        let mut own = of(container, kind);
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

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = sum.plus(*amount);
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let most = to.entry(name.clone()).or_insert(*amount);
        *most = (*most).max(*amount);
    }
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
