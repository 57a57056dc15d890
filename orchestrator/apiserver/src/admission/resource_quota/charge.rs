//! What a write adds to one quota, or why it may not.

use jiff::Timestamp;
use penstock_quota::amounts::{self, Amounts};
use penstock_quota::{Measured, said, takes_in, unsaid, usage};
use penstock_schema::Quantity;
use serde_json::Value;

use crate::registry::object::meta_str;

/// The write.
pub struct Charged<'a> {
    pub measured: Measured,
    /// `None`: the object is new.
    pub before: Option<&'a Value>,
    pub after: &'a Value,
    pub now: Timestamp,
}

/// What the quota will have used with the write; `None` if the write adds nothing to it.
pub fn plan(quota: &Value, charged: &Charged<'_>) -> Result<Option<Amounts>, String> {
    let Charged { measured, before, after, now } = charged;
    let name = meta_str(quota, "name");
    let hard = said(quota, "/status/hard");
    let bounded: Vec<&String> =
        hard.keys().filter(|name| Measured::by_name(name).as_ref() == Some(measured)).collect();
    if bounded.is_empty() || !takes_in(quota, measured, after) {
        return Ok(None);
    }
    if measured.group.is_empty()
        && measured.plural == "pods"
        && let Some(unsaid) = unsaid(after, bounded.iter().copied())
    {
        return Err(format!("failed quota: {name}: must specify {unsaid}"));
    }
    let used = said(quota, "/status/used");
    if bounded.iter().any(|name| !used.contains_key(*name)) {
        let names: Vec<&str> = bounded.iter().map(|name| name.as_str()).collect();
        return Err(format!("status unknown for quota: {name}, resources: {}", names.join(",")));
    }
    let had = before.filter(|before| takes_in(quota, measured, before));
    let had = had.map(|before| usage(measured, before, *now)).unwrap_or_default();
    let added = amounts::growth(&usage(measured, after, *now), &had);
    let added = amounts::named(&added, bounded.iter().copied());
    if added.is_empty() {
        return Ok(None);
    }
    let mut then = used.clone();
    amounts::add(&mut then, &added);
    let beyond: Vec<&String> = added.keys().filter(|name| then[*name] > most(&hard, name)).collect();
    if !beyond.is_empty() {
        let told = |of: &Amounts| amounts::told(&amounts::named(of, beyond.iter().copied()));
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            told(&added),
            told(&used),
            told(&hard)
        ));
    }
    Ok(Some(then))
}

fn most(hard: &Amounts, name: &str) -> Quantity {
    hard.get(name).copied().unwrap_or(Quantity::ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}})
    }

    fn pod(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn told(quota: &Value, before: Option<&Value>, after: &Value) -> Result<Option<String>, String> {
        let charged =
            Charged { measured: Measured::new("", "pods"), before, after, now: Timestamp::UNIX_EPOCH };
        plan(quota, &charged).map(|used| used.map(|used| amounts::told(&used)))
    }

    #[test]
    fn what_a_write_adds_is_charged_where_it_fits() {
        let quota = quota(
            json!({"pods": "2", "cpu": "1", "secrets": "1"}),
            json!({"pods": "1", "cpu": "500m", "secrets": "0"}),
        );
        let charged = told(&quota, None, &pod("500m"));
        assert_eq!(charged, Ok(Some("cpu=1,pods=2,secrets=0".into())));
        let beyond = told(&quota, None, &pod("501m"));
        assert_eq!(
            beyond,
            Err("exceeded quota: q, requested: cpu=501m, used: cpu=500m, limited: cpu=1".to_owned())
        );
        assert_eq!(
            told(&quota, Some(&pod("1")), &pod("1200m")),
            Ok(Some("cpu=700m,pods=1,secrets=0".into()))
        );
        assert_eq!(told(&quota, Some(&pod("2")), &pod("1")), Ok(None), "less is never refused");
    }

    #[test]
    fn a_quota_that_was_not_counted_yet_lets_nothing_in_that_it_bounds() {
        let uncounted = quota(json!({"pods": "2"}), json!({}));
        let refused = told(&uncounted, None, &pod("1"));
        assert_eq!(refused, Err("status unknown for quota: q, resources: pods".to_owned()));
        assert_eq!(told(&quota(json!({"secrets": "2"}), json!({})), None, &pod("1")), Ok(None));
        assert_eq!(told(&json!({"metadata": {"name": "q"}}), None, &pod("1")), Ok(None));
    }

    #[test]
    fn containers_must_say_what_is_bounded() {
        let bounded = quota(json!({"limits.cpu": "2"}), json!({"limits.cpu": "0"}));
        let refused = told(&bounded, None, &pod("1"));
        assert_eq!(refused, Err("failed quota: q: must specify limits.cpu for: c".to_owned()));
    }
}
