//! What all Services hold: addresses and node ports, followed from one allocation to the next.
//!
//! Of thousands of Services one changes between two allocations. To read all of them for each made ten thousand take
//! minutes; to have all of them in hand and compare was what a create cost at fifty thousand. Must not know how anything is
//! allocated.

use std::collections::HashMap;
use std::hash::Hash;

use super::allocation::held_by;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::generic::{Following, News};
use crate::registry::object::CachedObject;

/// What is held, as of the changes it followed last.
#[derive(Default)]
pub struct Ledger {
    following: Following,
    /// By the Service's uid.
    services: HashMap<String, Held>,
    ips: Counts<String>,
    ports: Counts<(u16, String)>,
}

/// What one Service holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub ips: Vec<String>,
    /// `(port, protocol)`.
    pub ports: Vec<(u16, String)>,
}

/// How many hold each.
struct Counts<K>(HashMap<K, i64>);

// === impl Ledger ===

impl Ledger {
    /// Brings it up to date with all Services.
    pub async fn follow(&mut self, registry: &Registry) -> Result<(), ApiError> {
        let news = registry.news("", "services", &mut self.following).await?;
        self.learn(news);
        Ok(())
    }

    /// What the Service of this uid holds, as it was followed last.
    pub fn held_by(&self, uid: &str) -> Option<&Held> {
        self.services.get(uid)
    }

    /// Whether another Service than one that holds this has the address.
    pub fn has_ip(&self, ip: &str, own: &Held) -> bool {
        self.ips.get(ip) > own.ips.iter().filter(|held| *held == ip).count() as i64
    }

    /// Whether another Service has the port by this protocol.
    pub fn has_port(&self, port: &(u16, String), own: &Held) -> bool {
        self.ports.get(port) > own.ports.iter().filter(|held| *held == port).count() as i64
    }

    fn learn(&mut self, news: News) {
        match news {
            News::Everything(all) => {
                self.services.clear();
                (self.ips, self.ports) = (Counts::default(), Counts::default());
                all.iter().for_each(|service| self.add(service));
            }
            News::Changes(changes) => {
                for [former, current] in changes {
                    former.iter().for_each(|service| self.remove(&service.uid));
                    current.iter().for_each(|service| self.add(service));
                }
            }
        }
    }

    fn add(&mut self, service: &CachedObject) {
        let held = held_by(&service.value());
        held.ips.iter().for_each(|ip| self.ips.add(ip.clone(), 1));
        held.ports.iter().for_each(|port| self.ports.add(port.clone(), 1));
        self.services.insert(service.uid.clone(), held);
    }

    fn remove(&mut self, uid: &str) {
        let held = self.services.remove(uid).unwrap_or_default();
        held.ips.into_iter().for_each(|ip| self.ips.add(ip, -1));
        held.ports.into_iter().for_each(|port| self.ports.add(port, -1));
    }
}

// === impl Counts ===

impl<K: Hash + Eq> Counts<K> {
    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> i64
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn add(&mut self, key: K, times: i64) {
        use std::collections::hash_map::Entry;
        match self.0.entry(key) {
            Entry::Occupied(count) if *count.get() + times == 0 => drop(count.remove()),
            Entry::Occupied(mut count) => *count.get_mut() += times,
            Entry::Vacant(place) => drop(place.insert(times)),
        }
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_schema::Schema;
    use serde_json::json;

    use super::*;

    fn service(name: &str, uid: &str, ip: &str, node_port: u16) -> Arc<CachedObject> {
        let ty = Schema::builtin().kind("", "v1", "Service").expect("a type");
        let value = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "namespace": "a", "name": name, "uid": uid },
            "spec": { "clusterIPs": [ip], "ports": [{ "port": 80, "protocol": "TCP", "nodePort": node_port }] },
        });
        Arc::new(CachedObject::new(&ty, &value, Vec::new()))
    }

    #[test]
    fn what_came_is_held_what_went_is_free_and_what_moved_is_held_once() {
        let nobody = Held::default();
        let (one, two, three) = (
            service("1", "u1", "10.0.0.1", 30_001),
            service("2", "u2", "10.0.0.2", 0),
            service("3", "u3", "10.0.0.3", 0),
        );
        let moved = service("2", "u2", "10.0.0.9", 0);
        let mut ledger = Ledger::default();
        ledger.learn(News::Everything(vec![one.clone(), two.clone()]));
        assert!(ledger.has_ip("10.0.0.1", &nobody) && ledger.has_port(&(30_001, "TCP".into()), &nobody));
        ledger.learn(News::Changes(vec![[Some(one), None], [None, Some(three.clone())]]));
        assert!(!ledger.has_ip("10.0.0.1", &nobody) && !ledger.has_port(&(30_001, "TCP".into()), &nobody));
        assert!(ledger.has_ip("10.0.0.2", &nobody) && ledger.has_ip("10.0.0.3", &nobody));
        ledger.learn(News::Changes(vec![[Some(two), Some(moved.clone())]]));
        assert!(ledger.has_ip("10.0.0.3", &nobody) && ledger.has_ip("10.0.0.9", &nobody));
        assert!(!ledger.has_ip("10.0.0.2", &nobody));
        // Changes were missed: all is told anew.
        ledger.learn(News::Everything(vec![moved]));
        assert!(!ledger.has_ip("10.0.0.3", &nobody) && ledger.has_ip("10.0.0.9", &nobody));
        ledger.learn(News::Everything(Vec::new()));
        assert!(ledger.ips.0.is_empty() && ledger.ports.0.is_empty() && ledger.services.is_empty());
    }

    #[test]
    fn what_a_service_has_itself_is_not_taken() {
        let mut ledger = Ledger::default();
        ledger.learn(News::Everything(vec![service("1", "u1", "10.0.0.1", 30_001)]));
        let own = ledger.held_by("u1").expect("there").clone();
        assert!(!ledger.has_ip("10.0.0.1", &own) && !ledger.has_port(&(30_001, "TCP".into()), &own));
        ledger.learn(News::Changes(vec![[None, Some(service("2", "u2", "10.0.0.1", 0))]]));
        assert!(ledger.has_ip("10.0.0.1", &own), "another has it too");
    }
}
