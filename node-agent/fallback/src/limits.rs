//! How much the proxy takes on, and what happens at each bound.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors left to the rest of the process: watches, probes, streams.
const DESCRIPTORS_KEPT: u64 = 2_048;

/// Bounds; nothing grows beyond them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Service ports. Those beyond are reported and not served.
    pub services_max: u32,
    /// Addresses with a listener. Those beyond are reported and refuse connections.
    pub listeners_max: usize,
    /// TCP connections at once; each is two descriptors. Those beyond wait, one taken a listener, the rest in the backlogs.
    pub connections_max: usize,
    /// UDP clients with a backend at once; each is a descriptor. Packets of those beyond are dropped until a session ends.
    pub sessions_max: usize,
    /// Clients remembered for Services with session affinity. The ones seen longest ago are forgotten first.
    pub affinity_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services_max: 65_536,
            listeners_max: 16_384,
            connections_max: 16_384,
            sessions_max: 16_384,
            affinity_max: 65_536,
        }
    }
}

impl Limits {
    /// Lets the process open as many files as it may, and lowers what does not fit into that.
    pub fn within_open_files(self) -> Self {
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return self };
        let granted = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        };
        self.fit(granted)
    }

    /// The same in proportion, when all of it is more than this many descriptors.
    fn fit(self, descriptors: u64) -> Self {
        let wanted = self.listeners_max + 2 * self.connections_max + self.sessions_max;
        let room = descriptors.saturating_sub(DESCRIPTORS_KEPT).max(64);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if wanted <= room {
            return self;
        }
        let share = |bound: usize| ((bound as u128 * room as u128) / wanted as u128).max(1) as usize;
        Self {
            listeners_max: share(self.listeners_max),
            connections_max: share(self.connections_max),
            sessions_max: share(self.sessions_max),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_may_not_open_is_not_promised() {
        let all = Limits::default();
        assert_eq!(all.fit(1 << 20), all);
        let few = all.fit(4_096);
        assert!(few.listeners_max + 2 * few.connections_max + few.sessions_max <= 2_048, "{few:?}");
        assert!(few.listeners_max > 0 && few.connections_max > 0 && few.sessions_max > 0);
        assert_eq!(few.affinity_max, all.affinity_max, "memory is no descriptor");
    }
}
