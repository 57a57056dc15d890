//! Quality of service: derived from what a pod's containers ask for and may use.

use penstock_schema::Quantity;
use serde_json::Value;

use crate::registry::object::items_at;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn class(pod: &Value) -> &'static str {
    let containers = items_at(pod, "/spec/containers").iter().chain(items_at(pod, "/spec/initContainers"));
    let mut any = false;
    let mut guaranteed = true;
    for c in containers {
        for resource in ["cpu", "memory"] {
            let amount =
                |list: &str| c.pointer(&format!("/resources/{list}/{resource}")).filter(|q| *q != "0");
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit || same(r, limit));
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether two quantities are one amount, however they are written.
fn same(one: &Value, other: Option<&Value>) -> bool {
    let amount = |q: &Value| q.as_str().and_then(Quantity::parse);
    amount(one).is_some() && amount(one) == other.and_then(amount)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(class(&pod(json!({}))), "BestEffort");
        assert_eq!(class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(&pod(json!({"limits": both, "requests": both}))), "Guaranteed");
        assert_eq!(class(&pod(json!({"limits": both}))), "Guaranteed");
        let written = json!({"cpu": "1000m", "memory": "1024Mi"});
        assert_eq!(class(&pod(json!({"limits": both, "requests": written}))), "Guaranteed");
    }
}
