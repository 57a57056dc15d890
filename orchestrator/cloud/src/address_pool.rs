//! AddressPool: addresses that Services of type LoadBalancer may have, as an object of the cluster.
//!
//! The kind is a custom one (`addresspools.penstock.io`), defined here and installed by [`crate::install`]. Ranges are
//! parsed once; what is no range is told in the pool's status and left out.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub const GROUP: &str = "penstock.io";
pub const VERSION: &str = "v1alpha1";
pub const PLURAL: &str = "addresspools";
/// Ranges of one pool.
const RANGES_MAX: usize = 256;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPool {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "kind")]
    pub kind: String,
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: AddressPoolSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AddressPoolStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// CIDRs, or ranges `first-last`, of either family.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether Services that name no pool may be given its addresses; true if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// Addresses there are, and addresses nobody has.
    #[serde(default)]
    pub total: i64,
    #[serde(default)]
    pub free: i64,
    /// Addresses Services have.
    #[serde(default)]
    pub used: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

fn kind() -> String {
    "AddressPool".into()
}

impl Resource for AddressPool {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "AddressPool".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The definition of the kind.
pub fn definition() -> Value {
    let range = json!({
        "type": "string", "minLength": 2, "maxLength": 100,
        "pattern": r"^\s*[0-9A-Fa-f:.]+\s*(/\s*[0-9]{1,3}|-\s*[0-9A-Fa-f:.]+)?\s*$",
        "description": "A CIDR such as 192.0.2.0/28, or a range such as 192.0.2.10-192.0.2.20; IPv4 or IPv6.",
    });
    let spec = json!({
        "type": "object", "required": ["addresses"],
        "properties": {
            "addresses": {
                "type": "array", "minItems": 1, "maxItems": RANGES_MAX, "items": range,
                "x-kubernetes-list-type": "set",
                "description": "What Services may be given.",
            },
            "autoAssign": {
                "type": "boolean", "default": true,
                "description": "Whether Services that name no pool may be given these addresses.",
            },
        },
    });
    let status = json!({
        "type": "object",
        "properties": {
            "total": {"type": "integer", "format": "int64", "description": "Addresses there are."},
            "free": {"type": "integer", "format": "int64", "description": "Addresses no Service has."},
            "used": {"type": "integer", "format": "int64", "description": "Addresses Services have."},
            "conditions": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object", "required": ["type", "status"],
                    "properties": {
                        "type": {"type": "string"}, "status": {"type": "string"}, "reason": {"type": "string"},
                        "message": {"type": "string"}, "observedGeneration": {"type": "integer"},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                    },
                },
            },
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"plural": PLURAL, "singular": "addresspool", "kind": "AddressPool", "listKind": "AddressPoolList"},
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses"},
                    {"name": "Auto-Assign", "type": "boolean", "jsonPath": ".spec.autoAssign"},
                    {"name": "Total", "type": "integer", "jsonPath": ".status.total"},
                    {"name": "Used", "type": "integer", "jsonPath": ".status.used"},
                    {"name": "Free", "type": "integer", "jsonPath": ".status.free"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object", "required": ["spec"],
                    "description": "Addresses that Services of type LoadBalancer may have.",
                    "properties": {"spec": spec, "status": status},
                }},
            }],
        },
    })
}

/// Addresses from `first` to `last`, both of one family, both given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: IpAddr,
    pub last: IpAddr,
}

/// Why text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("{text}: neither a CIDR nor a range first-last")]
    Form { text: String },
    #[error("{text}: the ends are of two address families")]
    Families { text: String },
    #[error("{text}: {address} is no address that hosts can be asked for on a network")]
    Unusable { text: String, address: IpAddr },
    #[error("{text}: the last address comes before the first")]
    Order { text: String },
}

// === impl Range ===

impl Range {
    /// Reads `192.0.2.0/28` or `192.0.2.10-192.0.2.20`.
    pub fn parse(text: &str) -> Result<Range, RangeError> {
        let form = || RangeError::Form { text: text.into() };
        if let Some((first, last)) = text.split_once('-') {
            let first: IpAddr = first.trim().parse().map_err(|_| form())?;
            let last: IpAddr = last.trim().parse().map_err(|_| form())?;
            if first.is_ipv6() != last.is_ipv6() {
                return Err(RangeError::Families { text: text.into() });
            }
            if last < first {
                return Err(RangeError::Order { text: text.into() });
            }
            return Range { first, last }.usable(text);
        }
        text.trim().parse::<IpNetwork>().map(Range::of).map_err(|_| form())?.usable(text)
    }

    /// Loopback, multicast and the like are nobody's on a network; a range that ends in them is a mistake.
    fn usable(self, text: &str) -> Result<Range, RangeError> {
        let is_wrong = |address: &IpAddr| {
            let is_link_local = match address {
                IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
                IpAddr::V6(six) => six.is_unicast_link_local(),
            };
            is_link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast()
        };
        match [self.first, self.last].into_iter().find(is_wrong) {
            Some(address) => Err(RangeError::Unusable { text: text.into(), address }),
            None => Ok(self),
        }
    }

    /// What of a network can be given: not the addresses that mean the network or all of it.
    pub fn of(network: IpNetwork) -> Range {
        let (mut first, mut last) = (number(network.network()), number(network.broadcast()));
        match network {
            IpNetwork::V4(n) if n.prefix() < 31 => {
                first += 1;
                last -= 1;
            }
            // The subnet's routers answer to its first address (RFC 4291, 2.6.1).
            IpNetwork::V6(n) if n.prefix() < 127 => first += 1,
            _ => {}
        }
        Range { first: address(first, network.is_ipv6()), last: address(last, network.is_ipv6()) }
    }

    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && self.first <= address && address <= self.last
    }

    /// How many addresses there are; at most what a signed count holds.
    pub fn count(&self) -> i64 {
        let between = number(self.last) - number(self.first);
        i64::try_from(between).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// The lowest address that `taken` does not hold. Its cost follows the addresses taken, not the range's length.
    pub fn lowest_free(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let mut candidate = number(self.first);
        let last = number(self.last);
        for used in taken.range(self.first..=self.last) {
            if number(*used) != candidate {
                break;
            }
            candidate = candidate.checked_add(1)?;
        }
        (candidate <= last).then(|| address(candidate, self.is_ipv6()))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn address(number: u128, ipv6: bool) -> IpAddr {
    if ipv6 { IpAddr::V6(number.into()) } else { IpAddr::V4((number as u32).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, first: &str, last: &str, count: i64) {
        let range = Range::parse(text).unwrap();
        assert_eq!((range.first.to_string().as_str(), range.last.to_string().as_str()), (first, last));
        assert_eq!(range.count(), count);
    }

    #[test]
    fn ranges_are_read_in_both_forms() {
        check("192.0.2.0/28", "192.0.2.1", "192.0.2.14", 14);
        check("192.0.2.7/32", "192.0.2.7", "192.0.2.7", 1);
        check("192.0.2.0/31", "192.0.2.0", "192.0.2.1", 2);
        check("192.0.2.10-192.0.2.12", "192.0.2.10", "192.0.2.12", 3);
        check("2001:db8::/126", "2001:db8::1", "2001:db8::3", 3);
        check("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", i64::MAX);
        assert!(matches!(Range::parse("192.0.2.10-2001:db8::1"), Err(RangeError::Families { .. })));
        assert!(matches!(Range::parse("192.0.2.10-192.0.2.9"), Err(RangeError::Order { .. })));
        assert!(matches!(Range::parse("many"), Err(RangeError::Form { .. })));
        for text in
            ["127.0.0.0/8", "224.0.0.1-224.0.0.9", "0.0.0.0-1.0.0.0", "fe80::1/128", "ff02::1/128", "::1/128"]
        {
            let error = Range::parse(text).unwrap_err();
            assert!(
                matches!(error, RangeError::Unusable { .. }) && error.to_string().contains(text),
                "{error}"
            );
        }
    }

    #[test]
    fn the_lowest_free_address_is_found_among_taken_ones() {
        let range = Range::parse("192.0.2.1-192.0.2.3").unwrap();
        let taken = |all: &[&str]| -> BTreeSet<IpAddr> { all.iter().map(|a| a.parse().unwrap()).collect() };
        let free = |all: &[&str]| range.lowest_free(&taken(all)).map(|a| a.to_string());
        assert_eq!(free(&[]).as_deref(), Some("192.0.2.1"));
        assert_eq!(free(&["192.0.2.1", "192.0.2.3"]).as_deref(), Some("192.0.2.2"));
        assert_eq!(free(&["192.0.2.2"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(free(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]), None);
    }

    #[test]
    fn the_whole_space_does_not_overflow() {
        let all = Range {
            first: "::".parse().unwrap(),
            last: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
        };
        assert_eq!(all.count(), i64::MAX);
        let end: IpAddr = "255.255.255.255".parse().unwrap();
        let top = Range { first: end, last: end };
        assert_eq!(top.lowest_free(&["255.255.255.255".parse().unwrap()].into()), None);
    }
}
