//! Which node announces an address, as the nodes say: an annotation on each Node, read here. Pure.
//!
//! Nodes elect among themselves and leave word when something changed; a node that died says what it said last. The
//! latest word about an address therefore counts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use penstock_informers::{Delta, Meta};

/// The Node's annotation: a JSON object of addresses with the time since when.
pub const ANNOTATION: &str = "penstock.io/announces";
/// Whether some node announces all addresses of a Service.
pub const CONDITION: &str = "AddressAnnounced";

/// Who announces each address.
pub type Holders = BTreeMap<IpAddr, String>;

/// What the nodes say together. A node of which nothing is known any more announces nothing.
pub fn holders<'n>(nodes: impl Iterator<Item = &'n Node>) -> Holders {
    let mut latest: BTreeMap<IpAddr, (Timestamp, &str)> = BTreeMap::new();
    for node in nodes.filter(|node| !is_lost(node)) {
        for (address, since) in said(node) {
            let word = (since, node.name());
            latest.entry(address).and_modify(|known| *known = (*known).max(word)).or_insert(word);
        }
    }
    latest.into_iter().map(|(address, (_, node))| (address, node.to_owned())).collect()
}

/// Whether a change of a Node may change who announces what.
pub fn may_differ(delta: &Delta<'_, Node>) -> bool {
    match delta {
        Delta::Updated { old, new } => {
            old.annotation(ANNOTATION) != new.annotation(ANNOTATION) || is_lost(old) != is_lost(new)
        }
        other => other.object().annotation(ANNOTATION).is_some(),
    }
}

/// Status, reason and message of the condition for these addresses.
pub fn tell(addresses: &[IpAddr], holders: &Holders) -> (&'static str, &'static str, String) {
    let (mut announced, mut missing) = (Vec::new(), Vec::new());
    for address in addresses {
        match holders.get(address) {
            Some(node) => announced.push(format!("{node} announces {address}")),
            None => missing.push(address.to_string()),
        }
    }
    if missing.is_empty() {
        return ("True", "Announced", announced.join(", "));
    }
    let message = format!(
        "no node announces {}: it takes a node that is Ready, not labelled \
         node.kubernetes.io/exclude-from-external-load-balancers, and with externalTrafficPolicy Local one with a \
         ready endpoint",
        missing.join(", ")
    );
    ("False", "NoAnnouncingNode", message)
}

/// What is not readable says nothing.
fn said(node: &Node) -> BTreeMap<IpAddr, Timestamp> {
    let words: BTreeMap<String, String> =
        node.annotation(ANNOTATION).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    words.iter().filter_map(|(address, since)| Some((address.parse().ok()?, since.parse().ok()?))).collect()
}

fn is_lost(node: &Node) -> bool {
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.filter(|it| it.type_ == "Ready").any(|ready| ready.status == "Unknown")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, says: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {ANNOTATION: says}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_latest_word_counts() {
        let nodes = [
            node("a", r#"{"192.0.2.1":"2026-01-01T00:00:02.5Z","192.0.2.2":"2026-01-01T00:00:01Z"}"#, "True"),
            node("b", r#"{"192.0.2.1":"2026-01-01T00:00:02Z","192.0.2.2":"2026-01-01T00:00:01.2Z"}"#, "True"),
        ];
        let holders = holders(nodes.iter());
        assert_eq!((holders[&ip("192.0.2.1")].as_str(), holders[&ip("192.0.2.2")].as_str()), ("a", "b"));
    }

    #[test]
    fn lost_nodes_and_nonsense_announce_nothing() {
        let nodes = [
            node("a", r#"{"192.0.2.1":"2026-01-01T00:00:02Z"}"#, "Unknown"),
            node("b", r#"{"192.0.2.1":"soon","many":"2026-01-01T00:00:02Z"}"#, "True"),
            node("c", "[", "True"),
        ];
        assert!(holders(nodes.iter()).is_empty());
    }

    #[test]
    fn a_condition_names_the_nodes_or_says_what_is_missing() {
        let holders = Holders::from([(ip("192.0.2.1"), "a".to_owned())]);
        assert_eq!(
            tell(&[ip("192.0.2.1")], &holders),
            ("True", "Announced", "a announces 192.0.2.1".to_owned())
        );
        let (status, reason, message) = tell(&[ip("192.0.2.1"), ip("2001:db8::1")], &holders);
        assert_eq!((status, reason), ("False", "NoAnnouncingNode"));
        assert!(message.starts_with("no node announces 2001:db8::1: "), "{message}");
    }
}
