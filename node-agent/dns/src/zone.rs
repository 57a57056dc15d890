//! The names of the cluster, as one immutable value.
//!
//! It exists so that lookups take no lock: a writer clones the zone, changes the clone and swaps it in. Cloning is
//! cheap because the tables are cut into shards that are shared until one of them changes. It must not know packets.

mod shards;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use shards::Shards;

/// What the zone is.
#[derive(Debug, Clone)]
pub struct ZoneConfig {
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Where this zone is served; the addresses of `ns.dns.<domain>`.
    pub addresses: Vec<IpAddr>,
    /// Ranges whose reverse names are answered here even when nobody has them: services and pods. Queries about
    /// them must not leak to upstream resolvers.
    pub reverse: Vec<IpNetwork>,
}

/// A Service's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What one Service puts into DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Whose.
    pub name: ServiceName,
    /// What the name leads to.
    pub exposure: Exposure,
    /// `spec.ports`, for SRV.
    pub ports: Vec<Port>,
}

/// What a Service's name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exposure {
    /// Its own addresses.
    Cluster(Vec<IpAddr>),
    /// Those of its ready endpoints.
    Headless(Vec<Endpoint>),
    /// Another name.
    External(String),
}

/// One ready endpoint of a headless Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// `hostname`, when it has one.
    pub hostname: Option<String>,
    /// The ports of its slice; shared by all endpoints of the slice.
    pub ports: Arc<[Port]>,
}

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Empty when unnamed: it then has no SRV record.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Port number.
    pub number: u16,
}

/// A record that is found by its name, which it has: a name beside it would be half as large again.
#[derive(Debug, Clone)]
struct ByName(Arc<ServiceRecord>);

/// Everything DNS knows of the cluster.
#[derive(Debug, Clone)]
pub struct Zone {
    pub(crate) config: Arc<ZoneConfig>,
    /// Labels of the domain, the leftmost first, in lower case.
    pub(crate) domain: Arc<[String]>,
    services: Shards<ByName, ()>,
    /// Names of an address.
    pointers: Shards<IpAddr, Names>,
    /// How many services each namespace has.
    namespaces: Arc<BTreeMap<String, usize>>,
}

// === impl Zone ===

impl Zone {
    /// An empty zone.
    pub fn new(config: ZoneConfig) -> Self {
        let labels = config.domain.split('.').filter(|label| !label.is_empty());
        Self {
            domain: labels.map(str::to_ascii_lowercase).collect(),
            config: Arc::new(config),
            services: Shards::default(),
            pointers: Shards::default(),
            namespaces: Arc::default(),
        }
    }

    /// Puts a service in, in the place of what it was before.
    pub fn insert(&mut self, record: ServiceRecord) {
        if self.has(&record) {
            return;
        }
        self.remove(&record.name);
        for (address, name) in pointers_of(&record) {
            self.pointers.entry(address).or_default().insert(name.into());
        }
        *Arc::make_mut(&mut self.namespaces).entry(record.name.namespace.clone()).or_default() += 1;
        self.services.insert(ByName(Arc::new(record)), ());
    }

    /// Whether a service is in here, and the same. Most changes are of endpoints, which only headless ones have in here.
    pub fn has(&self, record: &ServiceRecord) -> bool {
        self.services.get_key(&record.name).is_some_and(|ByName(known)| **known == *record)
    }

    /// Whether a service is in here, whatever it is.
    pub fn has_name(&self, name: &ServiceName) -> bool {
        self.services.get(name).is_some()
    }

    /// Takes a service out.
    pub fn remove(&mut self, name: &ServiceName) {
        let Some((ByName(record), ())) = self.services.remove(name) else { return };
        for (address, pointer) in pointers_of(&record) {
            if let Some(names) = self.pointers.get_mut(&address) {
                names.remove(&pointer);
                if names.is_empty() {
                    self.pointers.remove(&address);
                }
            }
        }
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match namespaces.get_mut(&name.namespace) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                namespaces.remove(&name.namespace);
            }
        }
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&ServiceRecord> {
        let name = ServiceName { namespace: namespace.to_string(), name: name.to_string() };
        self.services.get_key(&name).map(|ByName(record)| &**record)
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Without the domain.
    pub(crate) fn names_of(&self, address: IpAddr) -> Option<impl Iterator<Item = &str>> {
        self.pointers.get(&address).map(|names| names.0.iter().map(AsRef::as_ref))
    }
}

// === impl ByName ===

impl Borrow<ServiceName> for ByName {
    fn borrow(&self) -> &ServiceName {
        &self.0.name
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

/// Names in their order. Nearly always one, so no tree, which has room for eleven.
#[derive(Debug, Clone, Default)]
struct Names(Box<[Box<str>]>);

impl Names {
    fn insert(&mut self, name: Box<str>) {
        if let Err(at) = self.0.binary_search(&name) {
            let mut all = std::mem::take(&mut self.0).into_vec();
            all.reserve_exact(1);
            all.insert(at, name);
            self.0 = all.into();
        }
    }

    fn remove(&mut self, name: &str) {
        if let Ok(at) = self.0.binary_search_by(|known| (**known).cmp(name)) {
            let mut all = std::mem::take(&mut self.0).into_vec();
            all.remove(at);
            self.0 = all.into();
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Endpoint {
    /// The label below the service's name: the hostname, or the address with dashes.
    pub(crate) fn label(&self) -> String {
        match &self.hostname {
            Some(hostname) => hostname.to_ascii_lowercase(),
            None => self.address.to_string().replace(['.', ':'], "-"),
        }
    }
}

/// Every address of a service and the name it points back to.
fn pointers_of(record: &ServiceRecord) -> Vec<(IpAddr, String)> {
    let ServiceName { namespace, name } = &record.name;
    match &record.exposure {
        Exposure::Cluster(addresses) => {
            addresses.iter().map(|address| (*address, format!("{name}.{namespace}.svc"))).collect()
        }
        Exposure::Headless(endpoints) => {
            let pointer = |e: &Endpoint| (e.address, format!("{}.{name}.{namespace}.svc", e.label()));
            endpoints.iter().map(pointer).collect()
        }
        Exposure::External(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone::new(ZoneConfig {
            domain: "cluster.local".into(),
            addresses: vec!["10.96.0.10".parse().unwrap()],
            reverse: vec![],
        })
    }

    fn cluster(name: &str, address: &str) -> ServiceRecord {
        ServiceRecord {
            name: ServiceName { namespace: "a".into(), name: name.into() },
            exposure: Exposure::Cluster(vec![address.parse().unwrap()]),
            ports: vec![],
        }
    }

    #[test]
    fn replacing_a_service_leaves_no_pointer_of_the_old_address() {
        let mut zone = zone();
        zone.insert(cluster("web", "10.96.0.1"));
        let before = zone.clone();
        zone.insert(cluster("web", "10.96.0.2"));
        assert!(zone.names_of("10.96.0.1".parse().unwrap()).is_none());
        assert!(zone.names_of("10.96.0.2".parse().unwrap()).is_some());
        assert!(before.names_of("10.96.0.1".parse().unwrap()).is_some(), "a clone is not changed");
    }

    #[test]
    fn an_address_of_several_names_loses_one_and_keeps_the_others() {
        let mut zone = zone();
        let address = "10.96.0.1".parse().unwrap();
        for name in ["b", "a", "c", "b"] {
            zone.insert(cluster(name, "10.96.0.1"));
        }
        let names = |zone: &Zone| zone.names_of(address).unwrap().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names(&zone), ["a.a.svc", "b.a.svc", "c.a.svc"]);
        zone.remove(&ServiceName { namespace: "a".into(), name: "b".into() });
        assert_eq!(names(&zone), ["a.a.svc", "c.a.svc"]);
    }

    #[test]
    fn a_namespace_lives_as_long_as_its_last_service() {
        let mut zone = zone();
        zone.insert(cluster("one", "10.96.0.1"));
        zone.insert(cluster("two", "10.96.0.2"));
        zone.remove(&ServiceName { namespace: "a".into(), name: "one".into() });
        assert!(zone.has_namespace("a"));
        zone.remove(&ServiceName { namespace: "a".into(), name: "two".into() });
        assert!(!zone.has_namespace("a"));
    }
}
