//! Renewing the node's client certificate while the agent runs, and taking one that somebody else put into the file.
//!
//! After 70 to 90 per cent of the certificate's life the node asks for another by request, which the cluster approves because
//! it asks in its own name. The file is read again all the while: whoever writes another certificate into it, this program or
//! another half of the node, is followed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kube::{Client, Config};
use tokio_util::sync::CancellationToken;

use crate::certificate::Facts;
use crate::credentials::Credentials;
use crate::kubeconfig;
use crate::request::{self, Prepared, Purpose, RequestError};

/// How often the file is looked at, and the clock, which may be set.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Bounds of the pause after something failed.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Within a pause a tenth of what is left of the certificate may go by.
const AGAIN_SHARE: u32 = 10;
/// A request that nobody answers for so long is made anew.
const ANSWER_PATIENCE: Duration = Duration::from_secs(900);
const AGENT: &str = "node-agent";

/// See the module.
pub struct Renewal {
    pub credentials: Credentials,
    pub kubeconfig: PathBuf,
    pub node: String,
}

/// What is shown at present, and when it is to be renewed.
struct Present {
    certificate_pem: String,
    facts: Option<Facts>,
    due: SystemTime,
}

/// What is to be done at a moment.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait(Duration),
    Renew,
}

fn plan(due: SystemTime, now: SystemTime) -> Step {
    match due.duration_since(now) {
        Ok(left) if !left.is_zero() => Step::Wait(left.min(LOOK_EVERY)),
        _ => Step::Renew,
    }
}

/// When to try again what failed: soon, and the sooner the less is left of the certificate.
fn plan_again(ends_at: SystemTime, now: SystemTime) -> Duration {
    let left = ends_at.duration_since(now).unwrap_or_default();
    (left / AGAIN_SHARE).clamp(AGAIN.0, AGAIN.1)
}

// === impl Present ===

impl Present {
    /// `None` where the configuration shows no certificate.
    fn of(config: &Config) -> Option<Self> {
        let certificate_pem = kubeconfig::client_certificate(config)?;
        let facts = Facts::read(&certificate_pem);
        let jitter: f64 = rand::random();
        let due = facts.as_ref().map(|it| it.renewal_due(jitter));
        Some(Self { certificate_pem, facts, due: due.unwrap_or(SystemTime::UNIX_EPOCH) })
    }
}

// === impl Renewal ===

impl Renewal {
    /// Runs until `shutdown`; not at all for who shows no certificate.
    pub async fn run(self, shutdown: CancellationToken) {
        let Some(mut present) = Present::of(&self.credentials.config()) else { return };
        let mut is_told = false;
        loop {
            if let Some(other) = self.in_file(&present).await {
                tracing::info!(kubeconfig = %self.kubeconfig.display(), "taking the new client certificate of the kubeconfig");
                present = other;
                is_told = false;
            }
            let pause = match plan(present.due, SystemTime::now()) {
                Step::Wait(pause) => pause,
                Step::Renew if self.may_renew(&present) => {
                    let renewed = shutdown.run_until_cancelled(self.renew()).await;
                    let Some(renewed) = renewed else { return };
                    match renewed {
                        Ok(new) => {
                            present = new;
                            continue;
                        }
                        Err(error) => self.say(&present, &error),
                    }
                    let ends_at = present.facts.as_ref().map(|it| it.ends_at);
                    plan_again(ends_at.unwrap_or(SystemTime::UNIX_EPOCH), SystemTime::now())
                }
                Step::Renew => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(
                            kubeconfig = %self.kubeconfig.display(),
                            "the client certificate nears its end, and is no node's: it is not renewed by itself; write a new kubeconfig, and it is taken"
                        );
                    }
                    LOOK_EVERY
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Nodes get certificates in their own name only.
    fn may_renew(&self, present: &Present) -> bool {
        present.facts.as_ref().and_then(Facts::node) == Some(self.node.as_str())
    }

    /// Takes what the file has, if that is another certificate than the present one and does not end sooner.
    async fn in_file(&self, present: &Present) -> Option<Present> {
        let config = kubeconfig::read(&self.kubeconfig).await.ok()?;
        let other = Present::of(&config)?;
        let ends_at = |it: &Present| it.facts.as_ref().map(|facts| facts.ends_at);
        if other.certificate_pem == present.certificate_pem || ends_at(&other) < ends_at(present) {
            return None;
        }
        self.credentials.take(config);
        Some(other)
    }

    /// Asks for another certificate, keeps it, and shows it.
    async fn renew(&self) -> Result<Present, RequestError> {
        let ask = |source| RequestError::Ask { source: Box::new(source) };
        let client: Client = self.credentials.client(AGENT).map_err(ask)?;
        let prepared = Prepared::new(&self.node, Purpose::Client)?;
        let name = prepared.submit(&client, &self.node).await.map_err(ask)?;
        let answer = request::certificate(&client, &name, |_| {});
        let certificate_pem = match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(RequestError::Unanswered { name }),
        };
        if !request::is_for(&certificate_pem, &prepared.key_pem, &self.node) {
            return Err(RequestError::Other { name });
        }
        let mut config = self.credentials.config();
        kubeconfig::show(&mut config, &certificate_pem, &prepared.key_pem);
        let present = Present::of(&config).ok_or(RequestError::Other { name })?;
        if let Err(why) = self.keep(&certificate_pem, &prepared.key_pem) {
            tracing::warn!(
                "the new client certificate is in use, but could not be written, and is lost when this program ends: {why}"
            );
        }
        self.credentials.take(config);
        tracing::info!(
            next_in = ?present.due.duration_since(SystemTime::now()).unwrap_or_default(),
            "the client certificate is renewed"
        );
        Ok(present)
    }

    fn keep(&self, certificate_pem: &str, key_pem: &str) -> Result<(), String> {
        let path = self.kubeconfig.display();
        let text = std::fs::read_to_string(&self.kubeconfig).map_err(|error| format!("{path}: {error}"))?;
        let text = kubeconfig::with_certificate(&text, certificate_pem, key_pem)
            .map_err(|why| format!("{path}: {why}"))?;
        kubeconfig::write(&self.kubeconfig, &text).map_err(|error| error.to_string())
    }

    fn say(&self, present: &Present, error: &RequestError) {
        let why = crate::failure::reason(error);
        let left = present.facts.as_ref().and_then(|it| it.ends_at.duration_since(SystemTime::now()).ok());
        match left.filter(|left| !left.is_zero()) {
            Some(left) => tracing::warn!(?left, why, "the client certificate is not renewed yet: {error}"),
            None => tracing::error!(
                why,
                "the client certificate has ended, and the API server knows this node no more: write a new kubeconfig (`orchestrator credentials node`), which is taken at once, or start with --join and a new token"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::made;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn nothing_is_asked_before_its_time_and_the_file_is_looked_at_meanwhile() {
        assert_eq!(plan(at(100), at(0)), Step::Wait(LOOK_EVERY));
        assert_eq!(plan(at(100), at(98)), Step::Wait(Duration::from_secs(2)));
        assert_eq!(plan(at(100), at(100)), Step::Renew);
        assert_eq!(plan(at(100), at(500)), Step::Renew);
    }

    #[test]
    fn what_failed_is_tried_sooner_the_less_is_left() {
        assert_eq!(plan_again(at(30 * 24 * 3600), at(0)), AGAIN.1);
        assert_eq!(plan_again(at(100), at(0)), Duration::from_secs(10));
        assert_eq!(plan_again(at(3), at(0)), AGAIN.0);
        assert_eq!(plan_again(at(0), at(100)), AGAIN.0);
    }

    fn renewal(directory: &std::path::Path, certificate: &(String, String)) -> Renewal {
        let kubeconfig = directory.join("kubeconfig");
        let info = crate::cluster_info::ClusterInfo {
            server: "https://127.0.0.1:1".to_owned(),
            authority_pem: certificate.0.clone(),
        };
        kubeconfig::write(&kubeconfig, &kubeconfig::compose(&info, "u", &certificate.0, &certificate.1))
            .unwrap();
        let config = Config::new("https://127.0.0.1:1".parse().unwrap());
        Renewal { credentials: Credentials::new(config), kubeconfig, node: "n".to_owned() }
    }

    #[tokio::test]
    async fn a_later_certificate_in_the_file_is_taken_and_an_earlier_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let first = made::certificate("n", at(0), at(100));
        let renewal = renewal(directory.path(), &first);
        let present = Present::of(&kubeconfig::read(&renewal.kubeconfig).await.unwrap()).unwrap();
        assert!(renewal.may_renew(&present));
        assert!(present.due >= at(70) && present.due <= at(90), "{:?}", present.due);
        assert!(renewal.in_file(&present).await.is_none(), "it is the same");
        for (ends_at, is_taken) in [(at(50), false), (at(200), true)] {
            let (certificate, key) = made::certificate("n", at(0), ends_at);
            renewal.keep(&certificate, &key).unwrap();
            let mut changes = renewal.credentials.changes();
            changes.mark_unchanged();
            assert_eq!(renewal.in_file(&present).await.is_some(), is_taken);
            assert_eq!(changes.has_changed().unwrap(), is_taken);
        }
        assert_eq!(
            kubeconfig::facts(&renewal.credentials.config()).map(|it| it.ends_at),
            Some(at(200)),
            "everybody shows it"
        );
    }

    #[tokio::test]
    async fn a_certificate_of_somebody_else_is_not_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let renewal = renewal(directory.path(), &made::certificate("m", at(0), at(100)));
        let present = Present::of(&kubeconfig::read(&renewal.kubeconfig).await.unwrap()).unwrap();
        assert!(!renewal.may_renew(&present));
    }
}
