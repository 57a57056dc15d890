//! Session affinity: a client that comes again within the timeout gets the backend it had. Time is a parameter.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The set a client chose from, and the client.
type Key = (u32, IpAddr);

/// Which backend each client has.
#[derive(Debug)]
pub struct Affinity {
    kept: HashMap<Key, Kept>,
    /// By when they were seen, for the bound. The number tells apart those of one moment.
    by_age: BTreeMap<(Instant, u64), Key>,
    next: u64,
    max: usize,
}

#[derive(Debug)]
struct Kept {
    backend: SocketAddr,
    seen: (Instant, u64),
}

impl Affinity {
    /// Remembers at most this many clients.
    pub fn new(max: usize) -> Self {
        Self { kept: HashMap::new(), by_age: BTreeMap::new(), next: 0, max: max.max(1) }
    }

    /// The backend a client had, if it came within the timeout.
    pub fn kept(&self, set: u32, client: IpAddr, timeout: Duration, now: Instant) -> Option<SocketAddr> {
        let kept = self.kept.get(&(set, client))?;
        (now.saturating_duration_since(kept.seen.0) <= timeout).then_some(kept.backend)
    }

    /// Remembers a client's backend, seen now.
    pub fn keep(&mut self, set: u32, client: IpAddr, backend: SocketAddr, now: Instant) {
        let key = (set, client);
        let seen = (now, self.next);
        self.next += 1;
        if let Some(former) = self.kept.insert(key, Kept { backend, seen }) {
            self.by_age.remove(&former.seen);
        }
        self.by_age.insert(seen, key);
        if self.kept.len() > self.max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.kept.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn backend(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 244, 0, 1], port))
    }

    #[test]
    fn a_client_keeps_its_backend_until_it_stays_away_too_long() {
        let (mut affinity, start) = (Affinity::new(8), Instant::now());
        affinity.keep(7, client(1), backend(1), start);
        let later = start + Duration::from_secs(9);
        assert_eq!(affinity.kept(7, client(1), TIMEOUT, later), Some(backend(1)));
        affinity.keep(7, client(1), backend(1), later);
        assert_eq!(affinity.kept(7, client(1), TIMEOUT, later + TIMEOUT), Some(backend(1)));
        assert_eq!(affinity.kept(7, client(1), TIMEOUT, later + TIMEOUT + Duration::from_nanos(1)), None);
        assert_eq!(affinity.kept(8, client(1), TIMEOUT, later), None, "another set");
    }

    #[test]
    fn with_too_many_clients_the_one_seen_longest_ago_is_forgotten() {
        let (mut affinity, now) = (Affinity::new(2), Instant::now());
        affinity.keep(1, client(1), backend(1), now);
        affinity.keep(1, client(2), backend(2), now);
        affinity.keep(1, client(1), backend(1), now);
        affinity.keep(1, client(3), backend(3), now);
        assert_eq!(affinity.kept(1, client(2), TIMEOUT, now), None);
        assert_eq!(affinity.kept(1, client(1), TIMEOUT, now), Some(backend(1)));
        assert_eq!((affinity.kept.len(), affinity.by_age.len()), (2, 2));
    }
}
