//! Leader election by a Lease: of several processes that could run a loop, one does.
//!
//! The times in a Lease are another machine's, so they are only compared with each other: a holder is taken to be
//! gone when its Lease has not changed for its duration by our own clock. Upstream's controller manager and
//! scheduler do the same, with the same timings, so either may follow the other.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
/// How long others wait after the last renewal they saw.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long stops: others may take over five seconds later.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RENEW_INTERVAL: Duration = Duration::from_secs(4);
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// While the API server is starting, a candidate asks more often.
const FIRST_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// One who would lead.
pub struct Candidate {
    api: Api<Lease>,
    name: &'static str,
    identity: String,
}

/// What the Lease says, and since when.
#[derive(Clone, Debug, Default)]
struct Observed {
    lease: Option<Lease>,
    since: Option<Instant>,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nobody ever held it.
    Create,
    /// It is free, or its holder is gone.
    Take,
    /// It is ours.
    Renew,
    /// Somebody else leads.
    Wait,
}

// === impl Candidate ===

impl Candidate {
    pub fn new(client: Client, name: &'static str, identity: String) -> Self {
        Self { api: Api::namespaced(client, NAMESPACE), name, identity }
    }

    /// Waits until this process leads; false if `shutdown` came first.
    pub async fn campaign(&self, shutdown: &CancellationToken) -> bool {
        let mut observed = Observed::default();
        let mut wait = FIRST_RETRY_INTERVAL;
        loop {
            match shutdown.run_until_cancelled(self.attempt(&mut observed)).await {
                None => return false,
                Some(Ok(true)) => {
                    tracing::info!(lease = self.name, identity = self.identity, "leading");
                    return true;
                }
                Some(Ok(false)) => wait = RETRY_INTERVAL,
                Some(Err(error)) => {
                    tracing::debug!(lease = self.name, %error, "the lease could not be had yet");
                    wait = (wait * 2).min(RETRY_INTERVAL);
                }
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return false;
            }
        }
    }

    /// Renews until the lease is lost; true if `shutdown` came first.
    pub async fn hold(&self, shutdown: &CancellationToken) -> bool {
        let mut observed = Observed::default();
        let mut renewed = Instant::now();
        let mut wait = RENEW_INTERVAL;
        loop {
            if shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return true;
            }
            let attempt = tokio::time::timeout(RENEW_DEADLINE, self.attempt(&mut observed));
            match shutdown.run_until_cancelled(attempt).await {
                None => return true,
                Some(Ok(Ok(true))) => (renewed, wait) = (Instant::now(), RENEW_INTERVAL),
                Some(Ok(Ok(false))) => {
                    tracing::warn!(lease = self.name, "another process took the lease");
                    return false;
                }
                Some(Ok(Err(error))) => {
                    tracing::warn!(lease = self.name, %error, "the lease could not be renewed");
                    wait = RETRY_INTERVAL;
                }
                Some(Err(_)) => tracing::warn!(lease = self.name, "renewing the lease took too long"),
            }
            if renewed.elapsed() > RENEW_DEADLINE {
                return false;
            }
        }
    }

    /// Gives the lease back, so that another may lead at once.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(self.name).await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.api.replace(self.name, &PostParams::default(), &lease).await {
            tracing::debug!(lease = self.name, %error, "the lease could not be given back");
        }
    }

    /// Looks at the lease and tries to have it; whether it is ours now.
    async fn attempt(&self, observed: &mut Observed) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(self.name).await?;
        let now = Instant::now();
        observed.see(lease, now);
        let params = PostParams::default();
        let written = match observed.plan(&self.identity, now) {
            Plan::Wait => return Ok(false),
            Plan::Create => {
                let metadata = ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(claimed(None, &self.identity)) };
                self.api.create(&params, &lease).await
            }
            Plan::Take | Plan::Renew => {
                let mut lease = observed.lease.clone().unwrap_or_default();
                lease.spec = Some(claimed(lease.spec.as_ref(), &self.identity));
                // The resourceVersion read above makes this fail if anybody was quicker.
                self.api.replace(self.name, &params, &lease).await
            }
        };
        match written {
            Ok(lease) => {
                observed.see(Some(lease), now);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

// === impl Observed ===

impl Observed {
    /// Notes a lease; one that has not changed keeps its age.
    fn see(&mut self, lease: Option<Lease>, now: Instant) {
        let version =
            |lease: &Option<Lease>| lease.as_ref().map(|lease| lease.metadata.resource_version.clone());
        if self.since.is_none() || version(&self.lease) != version(&lease) {
            self.since = Some(now);
        }
        self.lease = lease;
    }

    fn plan(&self, identity: &str, now: Instant) -> Plan {
        let Some(lease) = &self.lease else {
            return Plan::Create;
        };
        let Some(spec) = &lease.spec else {
            return Plan::Take;
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder == identity {
            return Plan::Renew;
        }
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(LEASE_DURATION, Duration::from_secs);
        let unchanged = self.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        if holder.is_empty() || unchanged >= duration { Plan::Take } else { Plan::Wait }
    }
}

/// The lease's content once it is ours.
fn claimed(before: Option<&LeaseSpec>, identity: &str) -> LeaseSpec {
    let now = Some(MicroTime(Timestamp::now()));
    let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(identity));
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: if ours { before.and_then(|spec| spec.acquire_time.clone()) } else { now.clone() },
        renew_time: now,
        lease_transitions: Some(if ours || before.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec = Some(claimed(None, holder));
        lease
    }

    fn seen(lease: Option<Lease>, since: Instant) -> Observed {
        let mut observed = Observed::default();
        observed.see(lease, since);
        observed
    }

    #[test]
    fn a_free_lease_is_taken_and_our_own_renewed() {
        let now = Instant::now();
        assert_eq!(seen(None, now).plan("me", now), Plan::Create);
        assert_eq!(seen(Some(lease("", "1")), now).plan("me", now), Plan::Take);
        assert_eq!(seen(Some(lease("me", "1")), now).plan("me", now), Plan::Renew);
    }

    #[test]
    fn a_holder_that_renews_is_left_alone_whatever_its_clock_says() {
        let start = Instant::now();
        let mut observed = seen(Some(lease("other", "1")), start);
        let later = start + LEASE_DURATION - Duration::from_secs(1);
        assert_eq!(observed.plan("me", later), Plan::Wait);
        observed.see(Some(lease("other", "2")), later);
        assert_eq!(observed.plan("me", start + LEASE_DURATION), Plan::Wait);
    }

    #[test]
    fn a_holder_that_stopped_renewing_is_replaced() {
        let start = Instant::now();
        let mut observed = seen(Some(lease("other", "1")), start);
        observed.see(Some(lease("other", "1")), start + Duration::from_secs(7));
        assert_eq!(observed.plan("me", start + LEASE_DURATION), Plan::Take);
    }

    #[test]
    fn transitions_count_changes_of_the_holder_only() {
        let first = claimed(None, "a");
        assert_eq!(first.lease_transitions, Some(0));
        let renewed = claimed(Some(&first), "a");
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(0), &first.acquire_time));
        assert_eq!(claimed(Some(&renewed), "b").lease_transitions, Some(1));
    }
}
