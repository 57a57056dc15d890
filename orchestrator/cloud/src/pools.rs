//! Pools as the controllers see them: the objects in the cluster and the ranges of the command line, in one list;
//! and what each pool's status should say.

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use penstock_informers::Meta;

use crate::address_pool::{AddressPool, AddressPoolStatus, Range};
use crate::plan::{Ledger, Pool};

/// The name of the ranges given on the command line; no object can have it.
pub const CONFIGURED: &str = "(configured)";

/// Every pool by name, the configured one first. Ranges that cannot be read are left out, and a pool that is going
/// gives nothing any more.
pub fn pools<'p>(configured: &[IpNetwork], objects: impl Iterator<Item = &'p AddressPool>) -> Vec<Pool> {
    let mut pools = Vec::new();
    if !configured.is_empty() {
        let ranges = configured.iter().map(|network| Range::of(*network)).collect();
        pools.push(Pool { name: CONFIGURED.into(), ranges, auto_assign: true });
    }
    pools.extend(objects.filter(|object| !object.deleting()).map(|object| Pool {
        name: object.name().to_owned(),
        ranges: object.spec.addresses.iter().filter_map(|text| Range::parse(text).ok()).collect(),
        auto_assign: object.spec.auto_assign.unwrap_or(true),
    }));
    pools
}

/// The status a pool should have.
pub fn plan_status(
    object: &AddressPool,
    others: &[Pool],
    ledger: &Ledger,
    now: Timestamp,
) -> AddressPoolStatus {
    let mut ranges: Vec<Range> = Vec::new();
    let mut wrong = Vec::new();
    for text in &object.spec.addresses {
        match Range::parse(text) {
            Ok(range) => match overlap(&range, &ranges, others, object.name()) {
                Some(with) => wrong.push(format!("{text} overlaps {with}")),
                None => ranges.push(range),
            },
            Err(error) => wrong.push(error.to_string()),
        }
    }
    let total = ranges.iter().map(Range::count).fold(0i64, i64::saturating_add);
    let free = total - ledger.used(&ranges).min(total);
    let (status, reason, message) = match (wrong.is_empty(), free) {
        (false, _) => ("False", "InvalidAddresses", wrong.join("; ")),
        (true, 0) => ("False", "Exhausted", format!("all {total} addresses are in use")),
        (true, _) => ("True", "AddressesFree", format!("{free} of {total} addresses are free")),
    };
    let before = object.status.as_ref().and_then(|s| s.conditions.iter().find(|c| c.type_ == "Ready"));
    let since = before.filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    let ready = Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: object.metadata.generation,
    };
    AddressPoolStatus { total, free, used: total - free, conditions: vec![ready] }
}

/// What a range overlaps: one before it in its pool, or one of another pool.
fn overlap(range: &Range, own: &[Range], others: &[Pool], name: &str) -> Option<String> {
    let meets = |other: &Range| {
        other.is_ipv6() == range.is_ipv6() && other.first <= range.last && range.first <= other.last
    };
    if own.iter().any(meets) {
        return Some("another range of this pool".into());
    }
    let with = others.iter().filter(|pool| pool.name != name).find(|pool| pool.ranges.iter().any(meets))?;
    Some(format!("pool {}", with.name))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use kube::api::ObjectMeta;

    use super::*;
    use crate::address_pool::AddressPoolSpec;
    use crate::plan::Claim;

    fn object(name: &str, addresses: &[&str]) -> AddressPool {
        AddressPool {
            metadata: ObjectMeta { name: Some(name.into()), generation: Some(1), ..ObjectMeta::default() },
            spec: AddressPoolSpec {
                addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
                auto_assign: None,
            },
            ..AddressPool::default()
        }
    }

    fn told(object: &AddressPool, others: &[Pool], ledger: &Ledger) -> (i64, i64, String) {
        let status = plan_status(object, others, ledger, Timestamp::UNIX_EPOCH);
        (
            status.total,
            status.free,
            format!("{}: {}", status.conditions[0].reason, status.conditions[0].message),
        )
    }

    #[test]
    fn a_status_counts_what_is_free() {
        let a = object("a", &["192.0.2.1-192.0.2.2"]);
        let mut ledger = Ledger::default();
        let others = pools(&[], [&a].into_iter());
        assert_eq!(told(&a, &others, &ledger), (2, 2, "AddressesFree: 2 of 2 addresses are free".into()));
        let both: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        ledger.set("ns/a", &both, &Claim::default());
        assert_eq!(told(&a, &others, &ledger), (2, 0, "Exhausted: all 2 addresses are in use".into()));
    }

    #[test]
    fn a_status_names_ranges_that_are_wrong() {
        let a = object("a", &["192.0.2.0/28", "192.0.2.4-192.0.2.9", "many"]);
        let b = object("b", &["192.0.2.1/32"]);
        let all = pools(&["203.0.113.0/30".parse().unwrap()], [&a, &b].into_iter());
        assert_eq!(all[0].name, CONFIGURED);
        let (total, _, why) = told(&a, &all, &Ledger::default());
        assert_eq!(total, 6, "a range another pool has too is not counted");
        assert!(why.contains("overlaps pool b") && why.contains("many: neither"), "{why}");
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_stays() {
        let mut a = object("a", &["192.0.2.0/28"]);
        a.status = Some(plan_status(&a, &[], &Ledger::default(), Timestamp::UNIX_EPOCH));
        let later = plan_status(&a, &[], &Ledger::default(), Timestamp::MAX);
        assert_eq!(Some(later), a.status);
    }
}
