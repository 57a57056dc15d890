//! Which address families a Service has, by what its writer said and by what the cluster has. Pure.
//!
//! The rules are upstream's (KEP-563; `pkg/registry/core/service/storage/alloc.go`): the first family never changes, a
//! second comes and goes with `ipFamilyPolicy`. It must not know which addresses are free.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{is_headless, kind};
use crate::error::FieldError;
use crate::registry::object::{items_at, str_at};

pub(super) const SINGLE: &str = "SingleStack";
pub(super) const PREFER: &str = "PreferDualStack";
pub(super) const REQUIRE: &str = "RequireDualStack";

/// An address family as the API writes it.
pub(super) fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn other_of(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

pub(super) fn list<'a>(service: &'a Value, field: &str) -> Vec<&'a str> {
    items_at(service, &format!("/spec/{field}")).iter().filter_map(Value::as_str).collect()
}

/// A Service that is to have one family gives up the second, unless the writer changed the lists as well.
pub(super) fn trim_second(new: &mut Value, old: &Value) {
    let was_dual = !matches!(str_at(old, "/spec/ipFamilyPolicy"), "" | SINGLE);
    if !was_dual || str_at(new, "/spec/ipFamilyPolicy") != SINGLE {
        return;
    }
    for field in ["clusterIPs", "ipFamilies"] {
        let pointer = format!("/spec/{field}");
        if new.pointer(&pointer) == old.pointer(&pointer)
            && let Some(items) = new.pointer_mut(&pointer).and_then(Value::as_array_mut)
        {
            items.truncate(1);
        }
    }
}

/// Fills in families and policy. `configured` are the cluster's families, the default one first.
pub(super) fn settle(
    service: &mut Value,
    old: Option<&Value>,
    configured: &[&'static str],
) -> Result<(), Vec<FieldError>> {
    if kind(service) == "ExternalName" {
        return Ok(());
    }
    // What prefers two and was given one keeps it when the cluster gets its second family later.
    let same = |field: &str| {
        let pointer = format!("/spec/{field}");
        old.is_some_and(|old| old.pointer(&pointer) == service.pointer(&pointer))
    };
    let prefers = str_at(service, "/spec/ipFamilyPolicy") == PREFER;
    if prefers && ["ipFamilyPolicy", "clusterIPs", "ipFamilies"].into_iter().all(same) {
        return Ok(());
    }
    let mut errors = Vec::new();
    let addresses: Vec<String> = list(service, "clusterIPs").into_iter().map(str::to_owned).collect();
    let mut families: Vec<String> = list(service, "ipFamilies").into_iter().map(str::to_owned).collect();
    for (i, ip) in addresses.iter().enumerate().skip(families.len()) {
        let Ok(ip) = ip.parse::<IpAddr>() else { break };
        let family = family_of(ip);
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let why = format!("may not use {family} on a cluster which is not configured for it");
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), json!(addresses), why));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let selects = service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    // Its endpoints are somebody else's: they may have a family that the cluster does not have.
    let free = is_headless(service) && !selects;
    let policy = match str_at(service, "/spec/ipFamilyPolicy") {
        "" if free || addresses.len() > 1 || families.len() > 1 => REQUIRE,
        "" => SINGLE,
        PREFER => PREFER,
        REQUIRE => REQUIRE,
        _ => SINGLE,
    };
    if !free {
        if policy == REQUIRE && configured.len() < 2 {
            let why = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, why));
        }
        for (i, family) in families.iter().enumerate() {
            if !configured.contains(&family.as_str()) {
                let why = "not configured on this cluster";
                errors.push(FieldError::invalid(format!("spec.ipFamilies[{i}]"), family.as_str(), why));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
    }
    if families.is_empty() {
        families.extend(configured.first().map(|family| (*family).to_owned()));
    }
    if policy != SINGLE && families.len() == 1 && (free || configured.len() > 1) {
        families.push(other_of(&families[0]).to_owned());
    }
    service["spec"]["ipFamilyPolicy"] = policy.into();
    service["spec"]["ipFamilies"] = json!(families);
    Ok(())
}

/// What the lists must be like, by themselves and beside each other.
pub(super) fn validate(s: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (families, addresses) = (list(s, "ipFamilies"), list(s, "clusterIPs"));
    let policy = str_at(s, "/spec/ipFamilyPolicy");
    if kind(s) == "ExternalName" {
        let given = [("ipFamilies", !families.is_empty()), ("ipFamilyPolicy", !policy.is_empty())];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            let why = "may not be set for ExternalName services";
            errors.push(FieldError::forbidden(format!("spec.{field}"), why));
        }
        return errors;
    }
    let long = [("clusterIPs", &addresses), ("ipFamilies", &families)];
    for (field, items) in long.into_iter().filter(|(_, items)| items.len() > 1) {
        if items.len() > 2 {
            let why = "may only hold up to 2 values";
            errors.push(FieldError::invalid(format!("spec.{field}"), json!(items), why));
        }
        if policy == SINGLE {
            let why = format!("must be '{REQUIRE}' or '{PREFER}' when multiple {field} are specified");
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, why));
        }
    }
    for (i, family) in families.iter().enumerate() {
        let at = format!("spec.ipFamilies[{i}]");
        if !["IPv4", "IPv6"].contains(family) {
            errors.push(FieldError::not_supported(at, *family, &["IPv4", "IPv6"]));
        } else if families[..i].contains(family) {
            errors.push(FieldError::duplicate(at, *family));
        }
    }
    if addresses.len() > 1 && addresses.contains(&"None") {
        let why = "'None' must be the first and only value";
        errors.push(FieldError::invalid("spec.clusterIPs", json!(addresses), why));
    }
    let parsed: Vec<Option<IpAddr>> = addresses.iter().map(|ip| ip.parse().ok()).collect();
    if let [Some(first), Some(second), ..] = parsed[..]
        && first.is_ipv4() == second.is_ipv4()
    {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid("spec.clusterIPs", json!(addresses), why));
    }
    for (i, (ip, family)) in parsed.iter().zip(&families).enumerate() {
        if let Some(ip) = ip
            && family_of(*ip) != *family
        {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), addresses[i], why));
        }
    }
    errors
}

/// What may not change: the first of each list ever, the second unless it comes or, with `SingleStack`, goes.
pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if kind(new) == "ExternalName" || kind(old) == "ExternalName" {
        return errors;
    }
    for field in ["clusterIPs", "ipFamilies"] {
        let (is, was) = (list(new, field), list(old, field));
        for (i, (is, was)) in is.iter().zip(&was).enumerate() {
            // The first address is checked beside `clusterIP`.
            if is != was && !(field == "clusterIPs" && i == 0) {
                let why = "may not change once set";
                errors.push(FieldError::invalid(format!("spec.{field}[{i}]"), *is, why));
            }
        }
        if was.len() > 1 && is.len() == 1 && str_at(new, "/spec/ipFamilyPolicy") != SINGLE {
            let why = format!(
                "must be set to '{SINGLE}' when releasing the secondary {}",
                if field == "clusterIPs" { "clusterIP" } else { "ipFamily" }
            );
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", str_at(new, "/spec/ipFamilyPolicy"), why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUAL: &[&str] = &["IPv4", "IPv6"];

    fn settled(spec: Value, configured: &[&'static str]) -> Result<(String, Vec<String>), String> {
        let mut service = json!({"spec": spec});
        settle(&mut service, None, configured).map_err(|errors| errors[0].to_string())?;
        let families = list(&service, "ipFamilies").into_iter().map(str::to_owned).collect();
        Ok((str_at(&service, "/spec/ipFamilyPolicy").to_owned(), families))
    }

    #[test]
    fn families_follow_from_policy_addresses_and_the_cluster() {
        let some = |policy: &str, families: &[&str]| {
            Ok((policy.to_owned(), families.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>()))
        };
        for (spec, configured, expected) in [
            (json!({}), DUAL, some(SINGLE, &["IPv4"])),
            (json!({}), &["IPv6", "IPv4"], some(SINGLE, &["IPv6"])),
            (json!({"ipFamilies": ["IPv6"]}), DUAL, some(SINGLE, &["IPv6"])),
            (json!({"ipFamilyPolicy": PREFER}), DUAL, some(PREFER, &["IPv4", "IPv6"])),
            (json!({"ipFamilyPolicy": PREFER}), &["IPv4"], some(PREFER, &["IPv4"])),
            (
                json!({"ipFamilyPolicy": REQUIRE, "ipFamilies": ["IPv6"]}),
                DUAL,
                some(REQUIRE, &["IPv6", "IPv4"]),
            ),
            (json!({"ipFamilies": ["IPv6", "IPv4"]}), DUAL, some(REQUIRE, &["IPv6", "IPv4"])),
            (json!({"clusterIPs": ["fd00::9"]}), DUAL, some(SINGLE, &["IPv6"])),
            (json!({"clusterIPs": ["10.96.0.9", "fd00::9"]}), DUAL, some(REQUIRE, &["IPv4", "IPv6"])),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
                DUAL,
                some(SINGLE, &["IPv4"]),
            ),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None"]}),
                &["IPv4"],
                some(REQUIRE, &["IPv4", "IPv6"]),
            ),
        ] {
            assert_eq!(settled(spec.clone(), configured), expected, "{spec} on {configured:?}");
        }
    }

    #[test]
    fn what_the_cluster_does_not_have_is_named() {
        for (spec, part) in [
            (json!({"ipFamilyPolicy": REQUIRE}), "not configured for dual-stack"),
            (json!({"ipFamilies": ["IPv6"]}), "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured"),
            (json!({"clusterIPs": ["fd00::9"]}), "may not use IPv6 on a cluster"),
        ] {
            let error = settled(spec, &["IPv4"]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn lists_must_fit_each_other() {
        let count = |spec: Value| validate(&json!({"spec": spec})).len();
        assert_eq!(count(json!({"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["10.0.0.1", "fd00::1"]})), 0);
        for (spec, errors) in [
            (json!({"ipFamilies": ["IPv4", "IPv4"]}), 1),
            (json!({"ipFamilies": ["IPv5"]}), 1),
            (json!({"ipFamilies": ["IPv4", "IPv6", "IPv4"]}), 2),
            (json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}), 1),
            (json!({"clusterIPs": ["None", "10.0.0.2"]}), 1),
            (json!({"ipFamilies": ["IPv6"], "clusterIPs": ["10.0.0.1"]}), 1),
            (json!({"ipFamilyPolicy": SINGLE, "clusterIPs": ["10.0.0.1", "fd00::1"]}), 1),
            (json!({"type": "ExternalName", "ipFamilyPolicy": SINGLE, "ipFamilies": ["IPv4"]}), 2),
        ] {
            assert_eq!(count(spec.clone()), errors, "{spec}");
        }
    }

    #[test]
    fn the_second_family_comes_and_goes_and_the_first_stays() {
        let with = |policy: &str, families: &[&str], ips: &[&str]| json!({"spec": {"ipFamilyPolicy": policy, "ipFamilies": families, "clusterIPs": ips}});
        let dual = with(REQUIRE, DUAL, &["10.0.0.1", "fd00::1"]);
        let single = with(SINGLE, &["IPv4"], &["10.0.0.1"]);
        let mut trimmed = with(SINGLE, DUAL, &["10.0.0.1", "fd00::1"]);
        trim_second(&mut trimmed, &dual);
        assert_eq!(trimmed, single);
        assert!(validate_update(&trimmed, &dual).is_empty() && validate_update(&dual, &single).is_empty());
        assert_eq!(validate_update(&with(REQUIRE, &["IPv4"], &["10.0.0.1"]), &dual).len(), 2);
        assert_eq!(validate_update(&with(SINGLE, &["IPv6"], &["10.0.0.1"]), &single).len(), 1);
        assert_eq!(validate_update(&with(REQUIRE, DUAL, &["10.0.0.1", "fd00::2"]), &dual).len(), 1);
    }
}
