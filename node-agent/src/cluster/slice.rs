//! EndpointSlices cut down to the fields the network half uses, straight from their text. Pure.
//!
//! It exists because slices are what changes most: an object as the API has it is some hundred pieces of memory, which
//! would be thrown away for each change. It must not decide anything.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use penstock_dataplane::{Protocol, is_a_host};
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::endpoints::{EndpointView, Endpoints, Place};
use super::seen::View;
use super::view::protocol;

/// How many of the addresses that a slice has and no endpoint may have are remembered, to be told.
const NONSENSE_MAX: usize = 4;
const NONSENSE_CHARS_MAX: usize = 64;

/// An EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SliceView {
    /// Name of its Service, in its own namespace; none for a slice of no Service.
    pub service: Option<String>,
    pub ports: Arc<[PortView]>,
    pub endpoints: Endpoints,
    /// Some of the addresses that are no other host's or pod's, whose endpoints are left out.
    pub nonsense: Box<[String]>,
    /// `metadata.resourceVersion`, which grows over all objects of a cluster (KEP-5504).
    pub resource_version: u64,
    /// When the change happened that it was written for; not kept with the rest.
    pub changed_at: Option<Timestamp>,
    /// The pods among the endpoints; not kept with the rest.
    pub pods: Vec<PodView>,
}

/// A pod, as a slice lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    pub node: Box<str>,
    pub uid: Box<str>,
    /// Whether new connections are sent to it because of this slice.
    pub in_rotation: bool,
}

/// A port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortView {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub number: u16,
}

// === impl SliceView ===

impl SliceView {
    /// The same, of whose pods only those of one node are of interest.
    pub fn with_pods_of(mut self, node: &str) -> Self {
        self.pods.retain(|pod| *pod.node == *node);
        self
    }
}

impl View<EndpointSlice> for SliceView {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error> {
        let slice = SliceText::deserialize(deserializer)?;
        if slice.kind.as_ref().is_some_and(|kind| kind != "EndpointSlice") {
            return Err(de::Error::custom("it is no EndpointSlice"));
        }
        let meta = &slice.metadata;
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text(&meta.name),
            namespace: text(&meta.namespace),
            resource_version: text(&meta.resource_version),
            uid: text(&meta.uid),
            ..ObjectMeta::default()
        };
        Ok((metadata, slice.into()))
    }
}

// === What is read of the text, as discovery/v1 and meta/v1 name it ===

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceText<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    metadata: MetadataText<'a>,
    #[serde(borrow)]
    address_type: Text<'a>,
    #[serde(borrow)]
    ports: Option<Vec<PortText<'a>>>,
    #[serde(borrow)]
    endpoints: Option<Vec<EndpointText<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataText<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    resource_version: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    labels: Option<LabelsText<'a>>,
    #[serde(borrow)]
    annotations: Option<AnnotationsText<'a>>,
}

#[derive(Deserialize)]
struct LabelsText<'a> {
    /// The slice's Service.
    #[serde(borrow, rename = "kubernetes.io/service-name")]
    service: Text<'a>,
}

#[derive(Deserialize)]
struct AnnotationsText<'a> {
    /// When the change happened that the slice was written for.
    #[serde(borrow, rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    trigger_time: Text<'a>,
}

#[derive(Deserialize)]
struct PortText<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    protocol: Text<'a>,
    port: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointText<'a> {
    #[serde(borrow, default)]
    addresses: FirstText<'a>,
    #[serde(default)]
    conditions: Option<Conditions>,
    #[serde(borrow)]
    hostname: Text<'a>,
    #[serde(borrow)]
    node_name: Text<'a>,
    #[serde(borrow)]
    zone: Text<'a>,
    #[serde(borrow)]
    target_ref: Option<TargetText<'a>>,
    #[serde(borrow)]
    hints: Option<HintsText<'a>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct TargetText<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HintsText<'a> {
    #[serde(borrow)]
    for_nodes: Option<Vec<HintText<'a>>>,
    #[serde(borrow)]
    for_zones: Option<Vec<HintText<'a>>>,
}

#[derive(Deserialize)]
struct HintText<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// The first text of a list. Further addresses of one endpoint are interchangeable; the API says consumers use the first.
#[derive(Default)]
struct FirstText<'a>(Text<'a>);

// === impl FirstText ===

impl<'de: 'a, 'a> Deserialize<'de> for FirstText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct One<'a>(#[serde(borrow)] Cow<'a, str>);
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = FirstText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(FirstText(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                let first = all.next_element::<One<'de>>()?;
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstText(first.map(|One(text)| text)))
            }
        }
        deserializer.deserialize_any(First)
    }
}

// === From text to view ===

impl From<SliceText<'_>> for SliceView {
    fn from(slice: SliceText<'_>) -> Self {
        let MetadataText { resource_version, labels, annotations, .. } = slice.metadata;
        let ports = slice.ports.unwrap_or_default().into_iter().filter_map(|port| {
            Some(PortView {
                name: port.name.unwrap_or_default().into(),
                protocol: protocol(port.protocol.as_deref())?,
                // Without a number a slice means every port, which no Service has.
                number: u16::try_from(port.port?).ok().filter(|number| *number != 0)?,
            })
        });
        let ports = ports.collect();
        let endpoints = slice.endpoints.unwrap_or_default();
        let pods = endpoints.iter().filter_map(EndpointText::pod).collect();
        // Endpoints that are names (FQDN) are nobody's to translate to, and no mistake.
        let named = slice.address_type.as_deref() == Some("FQDN");
        let (mut good, mut nonsense) = (Vec::with_capacity(endpoints.len()), Vec::new());
        for endpoint in endpoints.iter().filter(|_| !named) {
            match endpoint.address() {
                Ok(address) => good.push((endpoint, address, Arc::new(endpoint.place()))),
                Err(text) if nonsense.len() < NONSENSE_MAX => {
                    nonsense.push(text.chars().take(NONSENSE_CHARS_MAX).collect());
                }
                Err(_) => {}
            }
        }
        Self {
            service: labels.and_then(|labels| Some(labels.service?.into_owned())),
            ports,
            endpoints: good.iter().map(|(endpoint, address, place)| endpoint.view(*address, place)).collect(),
            nonsense: nonsense.into(),
            resource_version: resource_version.and_then(|it| it.parse().ok()).unwrap_or_default(),
            changed_at: annotations.and_then(|all| all.trigger_time?.parse().ok()),
            pods,
        }
    }
}

impl EndpointText<'_> {
    /// Its address, or the text because of which it is no endpoint: loopback, link-local and the like lead to what listens for
    /// a node alone, and whoever may write slices would reach it.
    fn address(&self) -> Result<IpAddr, &str> {
        let text = self.addresses.0.as_deref().unwrap_or_default();
        let parsed = text.parse().ok().map(|address: IpAddr| address.to_canonical());
        parsed.filter(|address| is_a_host(*address)).ok_or(text)
    }

    fn place(&self) -> Place {
        let owned = |text: &Text<'_>| text.as_deref().map(str::to_owned);
        let names = |hints: Option<&Vec<HintText<'_>>>| {
            hints.into_iter().flatten().map(|hint| hint.name.clone().into_owned()).collect()
        };
        Place {
            node: owned(&self.node_name),
            zone: owned(&self.zone),
            for_nodes: names(self.hints.as_ref().and_then(|hints| hints.for_nodes.as_ref())),
            for_zones: names(self.hints.as_ref().and_then(|hints| hints.for_zones.as_ref())),
        }
    }

    fn view<'a>(&'a self, address: IpAddr, place: &'a Arc<Place>) -> EndpointView<'a> {
        let conditions = self.conditions.unwrap_or_default();
        // Absent means unknown, to be read as ready; serving defaults to what ready is (discovery/v1).
        let ready = conditions.ready.unwrap_or(true);
        EndpointView {
            address,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            hostname: self.hostname.as_deref(),
            place,
        }
    }

    fn pod(&self) -> Option<PodView> {
        let node = self.node_name.as_deref()?;
        let target = self.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
        let conditions = self.conditions.unwrap_or_default();
        Some(PodView {
            node: node.into(),
            uid: target.uid.as_deref()?.into(),
            // With publishNotReadyAddresses an endpoint stays ready while it ends, and then terminating decides.
            in_rotation: conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Seen;

    fn read(slice: &Value) -> Result<SliceView, serde_json::Error> {
        // As a watch reads it, from text that it may borrow.
        let text = slice.to_string();
        serde_json::from_str::<Seen<EndpointSlice, SliceView>>(&text).map(Seen::into_view)
    }

    #[test]
    fn a_slice_is_read_from_all_that_the_api_may_say() {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1", "namespace": "a", "resourceVersion": "71", "uid": "u",
                "labels": {"kubernetes.io/service-name": "web", "x": "y"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:01Z"},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:endpoints": {}}}],
            },
            "addressType": "IPv4",
            "ports": [{"name": "h\u{74}tp", "port": 8080, "appProtocol": "x"}, {"port": null}, {"port": 1, "protocol": "UDP"}],
            "endpoints": [
                {
                    "addresses": ["10.244.0.2", "10.244.0.9"], "conditions": {"ready": null, "terminating": true},
                    "hostname": "web-0", "nodeName": "n\n1", "zone": "east", "deprecatedTopology": {"a": "b"},
                    "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "a", "uid": "p"},
                    "hints": {"forZones": [{"name": "east"}]},
                },
                {"addresses": ["127.0.0.1"]},
                {"addresses": [], "conditions": null, "targetRef": null},
                {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
            ],
        });
        let view = read(&slice).expect("a slice");
        let place = Place {
            node: Some("n\n1".to_owned()),
            zone: Some("east".to_owned()),
            for_nodes: vec![],
            for_zones: vec!["east".to_owned()],
        };
        let (place, nowhere) = (Arc::new(place), Arc::new(Place::default()));
        let first = EndpointView {
            address: IpAddr::from([10, 244, 0, 2]),
            ready: true,
            serving: true,
            terminating: true,
            hostname: Some("web-0"),
            place: &place,
        };
        let second = EndpointView {
            address: IpAddr::from([10, 244, 0, 3]),
            ready: false,
            serving: false,
            terminating: false,
            hostname: None,
            place: &nowhere,
        };
        let port = |name: &str, protocol, number| PortView { name: name.into(), protocol, number };
        assert_eq!(
            view,
            SliceView {
                service: Some("web".to_owned()),
                ports: [port("http", Protocol::Tcp, 8080), port("", Protocol::Udp, 1)].into(),
                endpoints: [first, second].into_iter().collect(),
                nonsense: ["127.0.0.1".to_owned(), String::new()].into(),
                resource_version: 71,
                changed_at: "2026-01-01T00:00:01Z".parse().ok(),
                pods: vec![PodView { node: "n\n1".into(), uid: "p".into(), in_rotation: false }],
            }
        );
    }

    #[test]
    fn what_may_be_missing_is_and_what_is_no_slice_is_refused() {
        let nulls =
            json!({"metadata": {"labels": null, "annotations": null}, "ports": null, "endpoints": null});
        for nothing in [json!({}), json!({"metadata": {}}), nulls] {
            assert_eq!(read(&nothing).expect("a slice of nothing"), SliceView::default());
        }
        for other in
            [json!({"kind": "Pod"}), json!([]), json!({"endpoints": {}}), json!({"ports": [{"port": "80"}]})]
        {
            assert!(read(&other).is_err(), "{other}");
        }
    }
}
