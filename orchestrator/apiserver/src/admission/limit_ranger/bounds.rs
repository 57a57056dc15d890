//! What an item of a LimitRange bounds: the least and the most that may be asked for, and how far a limit may lie above
//! what is asked for.

use penstock_schema::Quantity;
use serde_json::Value;

use crate::registry::object::items_at;
use penstock_quota::amounts::{self, Amounts, Kind};

/// What of a pod is out of bounds.
pub fn of_pod(pod: &Value, item: &Value) -> Vec<String> {
    let check = |requests: Amounts, limits: Amounts| {
        let asked = Asked { requests, limits };
        let least = bounds(item, "min").flat_map(|bound| asked.at_least(&bound)).collect::<Vec<_>>();
        let most = bounds(item, "max").flat_map(|bound| asked.at_most(&bound)).collect::<Vec<_>>();
        let ratio = bounds(item, "maxLimitRequestRatio").filter_map(|bound| asked.within_ratio(&bound));
        [least, most, ratio.collect()].concat()
    };
    match item["type"].as_str() {
        Some("Container") => {
            let containers = items_at(pod, "/spec/containers").iter();
            let containers = containers.chain(items_at(pod, "/spec/initContainers"));
            let each = containers.flat_map(|container| {
                check(amounts::of(container, Kind::Requests), amounts::of(container, Kind::Limits))
            });
            each.collect()
        }
        Some("Pod") => check(amounts::of_pod(pod, Kind::Requests), amounts::of_pod(pod, Kind::Limits)),
        _ => Vec::new(),
    }
}

/// What of a claim is out of bounds.
pub fn of_claim(claim: &Value, item: &Value) -> Vec<String> {
    if item["type"] != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let asked = Asked { requests: amounts::of(&claim["spec"], Kind::Requests), limits: Amounts::new() };
    let least = bounds(item, "min").flat_map(|bound| asked.at_least(&bound));
    least.chain(bounds(item, "max").filter_map(|bound| asked.requests_at_most(&bound))).collect()
}

/// One bound of one resource.
struct Bound<'a> {
    resource: &'a str,
    /// Of what: a container, a pod or a claim.
    of: &'a str,
    amount: Quantity,
}

fn bounds<'a>(item: &'a Value, field: &str) -> impl Iterator<Item = Bound<'a>> {
    let of = item["type"].as_str().unwrap_or_default();
    let amounts = item[field].as_object().into_iter().flatten();
    amounts.filter_map(move |(resource, text)| {
        Some(Bound { resource, of, amount: Quantity::parse(text.as_str()?)? })
    })
}

struct Asked {
    requests: Amounts,
    limits: Amounts,
}

// === impl Asked ===

impl Asked {
    fn at_least(&self, bound: &Bound<'_>) -> Option<String> {
        let Bound { resource, of, amount } = bound;
        let rule = format!("minimum {resource} usage per {of} is {amount}");
        let Some(request) = self.requests.get(*resource) else {
            return Some(format!("{rule}.  No request is specified"));
        };
        if request < amount {
            return Some(format!("{rule}, but request is {request}"));
        }
        let limit = self.limits.get(*resource).filter(|limit| *limit < amount)?;
        Some(format!("{rule}, but limit is {limit}"))
    }

    fn at_most(&self, bound: &Bound<'_>) -> Option<String> {
        let Bound { resource, of, amount } = bound;
        let rule = format!("maximum {resource} usage per {of} is {amount}");
        let Some(limit) = self.limits.get(*resource) else {
            return Some(format!("{rule}.  No limit is specified"));
        };
        if limit > amount {
            return Some(format!("{rule}, but limit is {limit}"));
        }
        let request = self.requests.get(*resource).filter(|request| *request > amount)?;
        Some(format!("{rule}, but request is {request}"))
    }

    fn requests_at_most(&self, bound: &Bound<'_>) -> Option<String> {
        let Bound { resource, of, amount } = bound;
        let rule = format!("maximum {resource} usage per {of} is {amount}");
        match self.requests.get(*resource) {
            None => Some(format!("{rule}.  No request is specified")),
            Some(request) if request > amount => Some(format!("{rule}, but request is {request}")),
            Some(_) => None,
        }
    }

    fn within_ratio(&self, bound: &Bound<'_>) -> Option<String> {
        let Bound { resource, of, amount } = bound;
        let rule = format!("{resource} max limit to request ratio per {of} is {amount}");
        let some = |of: &Amounts| of.get(*resource).copied().filter(|it| *it > Quantity::ZERO);
        let Some(request) = some(&self.requests) else {
            return Some(format!("{rule}, but no request is specified or request is 0"));
        };
        let Some(limit) = some(&self.limits) else {
            return Some(format!("{rule}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.nanos() as f64 / request.nanos() as f64;
        let most = amount.nanos() as f64 / Quantity::count(1).nanos() as f64;
        (ratio > most).then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(requests: Value, limits: Value) -> Value {
        json!({"spec": {"containers": [{"resources": {"requests": requests, "limits": limits}}]}})
    }

    #[test]
    fn each_bound_is_told_in_the_words_that_clients_know() {
        let item = |field: &str, amount: &str| json!({"type": "Container", field: {"cpu": amount}});
        let cpu = |amount: &str| json!({"cpu": amount});
        let none = json!({});
        for (field, bound, requests, limits, wanted) in [
            ("min", "100m", cpu("100m"), cpu("1"), None),
            (
                "min",
                "100m",
                none.clone(),
                cpu("1"),
                Some("minimum cpu usage per Container is 100m.  No request is specified"),
            ),
            (
                "min",
                "100m",
                cpu("10m"),
                none.clone(),
                Some("minimum cpu usage per Container is 100m, but request is 10m"),
            ),
            (
                "min",
                "100m",
                cpu("100m"),
                cpu("50m"),
                Some("minimum cpu usage per Container is 100m, but limit is 50m"),
            ),
            ("max", "1", cpu("1"), cpu("1000m"), None),
            (
                "max",
                "1",
                cpu("1"),
                none.clone(),
                Some("maximum cpu usage per Container is 1.  No limit is specified"),
            ),
            (
                "max",
                "1",
                none.clone(),
                cpu("2"),
                Some("maximum cpu usage per Container is 1, but limit is 2"),
            ),
            ("max", "1", cpu("2"), cpu("1"), Some("maximum cpu usage per Container is 1, but request is 2")),
            ("maxLimitRequestRatio", "2", cpu("1"), cpu("2"), None),
            (
                "maxLimitRequestRatio",
                "2",
                cpu("1"),
                cpu("3"),
                Some("cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
            ),
            (
                "maxLimitRequestRatio",
                "2",
                none.clone(),
                cpu("3"),
                Some(
                    "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
                ),
            ),
            (
                "maxLimitRequestRatio",
                "2",
                cpu("1"),
                none.clone(),
                Some(
                    "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
                ),
            ),
        ] {
            let found = of_pod(&pod(requests, limits), &item(field, bound));
            assert_eq!(found, Vec::from_iter(wanted.map(str::to_owned)));
        }
    }

    #[test]
    fn a_pod_is_bounded_by_the_sum_and_its_containers_each() {
        let limits = |amount: &str| json!({"resources": {"limits": {"memory": amount}}});
        let pod = json!({"spec": {"containers": [limits("1Gi"), limits("3Gi")]}});
        let item = |of: &str| json!({"type": of, "max": {"memory": "2Gi"}});
        assert_eq!(of_pod(&pod, &item("Pod")), ["maximum memory usage per Pod is 2Gi, but limit is 4Gi"]);
        assert_eq!(
            of_pod(&pod, &item("Container")),
            ["maximum memory usage per Container is 2Gi, but limit is 3Gi"]
        );
        assert!(of_pod(&pod, &item("PersistentVolumeClaim")).is_empty());
    }

    #[test]
    fn claims_are_bounded_by_what_they_ask_for() {
        let claim = |storage: &str| json!({"spec": {"resources": {"requests": {"storage": storage}}}});
        let item =
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}});
        assert!(of_claim(&claim("2Gi"), &item).is_empty());
        assert_eq!(
            of_claim(&claim("6Gi"), &item),
            ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"]
        );
        assert_eq!(
            of_claim(&claim("1Mi"), &item),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]
        );
    }
}
