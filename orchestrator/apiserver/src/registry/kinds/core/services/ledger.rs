//! What all Services hold: addresses and node ports, followed from one look at them to the next.
//!
//! Of thousands of Services one changes between two allocations, and to read all of them for each made ten thousand take
//! minutes. Must not know how anything is allocated.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::allocation::held_by;
use crate::registry::object::CachedObject;

/// What is held, as of the objects it followed last.
#[derive(Default)]
pub struct Ledger {
    known: Vec<Arc<CachedObject>>,
    ips: Counts<String>,
    ports: Counts<(u16, String)>,
}

/// What one Service holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub ips: Vec<String>,
    /// `(port, protocol)`.
    pub ports: Vec<(u16, String)>,
}

/// How many hold each; below zero for a moment while what moved was taken away and not yet added.
struct Counts<K>(HashMap<K, i64>);

// === impl Ledger ===

impl Ledger {
    /// Brings it up to date with all Services. Those that are the same objects as before cost a comparison of pointers.
    pub fn follow(&mut self, all: Vec<Arc<CachedObject>>) {
        let before = std::mem::take(&mut self.known);
        let (mut old, mut new) = (before.iter().peekable(), all.iter().peekable());
        loop {
            // Should the order be another than that of the list, what did not change is taken away at one place and added
            // at another: the counts are right all the same.
            let (gone, came) = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => (true, true),
                (Some(old), Some(new)) => (place(old) <= place(new), place(old) >= place(new)),
            };
            let (gone, came) = (gone.then(|| old.next()).flatten(), came.then(|| new.next()).flatten());
            if let (Some(gone), Some(came)) = (gone, came)
                && Arc::ptr_eq(gone, came)
            {
                continue;
            }
            gone.into_iter().for_each(|object| self.add(object, -1));
            came.into_iter().for_each(|object| self.add(object, 1));
        }
        self.known = all;
    }

    /// The Service of this uid, as it was followed last.
    pub fn find(&self, uid: &str) -> Option<&Arc<CachedObject>> {
        self.known.iter().find(|object| object.uid == uid)
    }

    /// Whether another Service than one that holds this has the address.
    pub fn has_ip(&self, ip: &str, own: &Held) -> bool {
        self.ips.get(ip) > own.ips.iter().filter(|held| *held == ip).count() as i64
    }

    /// Whether another Service has the port by this protocol.
    pub fn has_port(&self, port: &(u16, String), own: &Held) -> bool {
        self.ports.get(port) > own.ports.iter().filter(|held| *held == port).count() as i64
    }

    fn add(&mut self, object: &CachedObject, times: i64) {
        let held = held_by(&object.value());
        held.ips.into_iter().for_each(|ip| self.ips.add(ip, times));
        held.ports.into_iter().for_each(|port| self.ports.add(port, times));
    }
}

fn place(object: &CachedObject) -> (&str, &str) {
    (&object.namespace, &object.name)
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
        let mut ledger = Ledger::default();
        ledger.follow(vec![one.clone(), two.clone()]);
        assert!(ledger.has_ip("10.0.0.1", &nobody) && ledger.has_port(&(30_001, "TCP".into()), &nobody));
        ledger.follow(vec![two.clone(), three.clone()]);
        assert!(!ledger.has_ip("10.0.0.1", &nobody) && !ledger.has_port(&(30_001, "TCP".into()), &nobody));
        assert!(ledger.has_ip("10.0.0.2", &nobody) && ledger.has_ip("10.0.0.3", &nobody));
        // In another order than that of names, and with one that was changed.
        ledger.follow(vec![three, service("2", "u2", "10.0.0.9", 0)]);
        assert!(ledger.has_ip("10.0.0.3", &nobody) && ledger.has_ip("10.0.0.9", &nobody));
        assert!(!ledger.has_ip("10.0.0.2", &nobody));
        ledger.follow(Vec::new());
        assert!(ledger.ips.0.is_empty() && ledger.ports.0.is_empty());
    }

    #[test]
    fn what_a_service_has_itself_is_not_taken() {
        let one = service("1", "u1", "10.0.0.1", 30_001);
        let mut ledger = Ledger::default();
        ledger.follow(vec![one.clone()]);
        let own = held_by(&ledger.find("u1").expect("there").value());
        assert!(!ledger.has_ip("10.0.0.1", &own) && !ledger.has_port(&(30_001, "TCP".into()), &own));
        ledger.follow(vec![one, service("2", "u2", "10.0.0.1", 0)]);
        assert!(ledger.has_ip("10.0.0.1", &own), "another has it too");
    }
}
