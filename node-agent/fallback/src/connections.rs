//! Who is talking to which backend, so that the end of a backend ends what depends on it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A backend of a service port.
type Key = (u32, SocketAddr);

/// The backends in use.
#[derive(Debug, Default)]
pub struct Connections {
    in_use: Mutex<HashMap<Key, Use>>,
}

#[derive(Debug, Default)]
struct Use {
    ended: CancellationToken,
    holders: TaskTracker,
}

/// The use of a backend by one connection or session; dropped with it.
#[derive(Debug)]
pub struct Held {
    connections: Arc<Connections>,
    key: Key,
    ended: CancellationToken,
    /// None only while it is dropped.
    holder: Option<TaskTrackerToken>,
}

/// What depended on a backend and is ending.
#[derive(Debug)]
pub struct Ending {
    holders: TaskTracker,
}

impl Connections {
    /// Notes that a backend is in use.
    pub fn hold(self: &Arc<Self>, service: u32, backend: SocketAddr) -> Held {
        let key = (service, backend);
        let mut in_use = self.in_use.lock();
        let entry = in_use.entry(key).or_default();
        let holder = Some(entry.holders.token());
        Held { connections: self.clone(), key, ended: entry.ended.clone(), holder }
    }

    /// How many hold a backend.
    pub fn count(&self, service: u32, backend: SocketAddr) -> usize {
        self.in_use.lock().get(&(service, backend)).map_or(0, |used| used.holders.len())
    }

    /// Ends everything that depends on a backend; who holds it from now on does so anew.
    pub fn end(&self, service: u32, backend: SocketAddr) -> Option<Ending> {
        self.in_use.lock().remove(&(service, backend)).map(Use::end)
    }

    /// Ends everything.
    pub fn end_all(&self) -> Vec<Ending> {
        std::mem::take(&mut *self.in_use.lock()).into_values().map(Use::end).collect()
    }
}

impl Use {
    fn end(self) -> Ending {
        self.ended.cancel();
        self.holders.close();
        Ending { holders: self.holders }
    }
}

impl Ending {
    /// How many there are still.
    pub fn count(&self) -> usize {
        self.holders.len()
    }

    /// Returns when there is none.
    pub async fn wait(&self) {
        self.holders.wait().await;
    }
}

impl Held {
    /// Returns when the backend is gone.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut in_use = self.connections.in_use.lock();
        drop(self.holder.take());
        // After its end the entry, if there is one, is of others, who hold it.
        if in_use.get(&self.key).is_some_and(|entry| entry.holders.is_empty()) {
            in_use.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_backend_is_the_end_of_its_connections_only() {
        let connections = Arc::new(Connections::default());
        let (one, other) = (SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([10, 0, 0, 2], 80)));
        let first = connections.hold(1, one);
        let second = connections.hold(1, one);
        let unrelated = connections.hold(1, other);
        let of_another_service = connections.hold(2, one);
        let ending = connections.end(1, one).expect("it was in use");
        assert_eq!(ending.count(), 2);
        assert!(first.ended.is_cancelled() && second.ended.is_cancelled());
        assert!(!unrelated.ended.is_cancelled() && !of_another_service.ended.is_cancelled());

        let again = connections.hold(1, one);
        drop((first, second));
        assert_eq!(ending.count(), 0);
        assert!(!again.ended.is_cancelled(), "who comes after the end is not ended by it");
        drop((again, unrelated, of_another_service));
        assert!(connections.in_use.lock().is_empty());
    }
}
