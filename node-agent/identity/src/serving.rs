//! The certificate of the node's own server, by which the API server recognises it for logs and sessions.
//!
//! It is asked for by request, and a person approves that (docs/adr/0043): until then the server shows one that it signed
//! itself. When most of its life is over, another is asked for in the same way, while the one there is stays in use.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use penstock_process::private_files::{self, FileError};
use tokio_util::sync::CancellationToken;

use crate::certificate::Facts;
use crate::credentials::Credentials;
use crate::request::{self, Answer, Prepared, Purpose, RequestError};

/// The clock may be set, and somebody may take files away.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(30);
/// Who was told no is not asked again at once.
const DENIED_AGAIN: Duration = Duration::from_secs(3600);
const AGENT: &str = "node-agent";

/// See the module.
pub struct Serving {
    pub credentials: Credentials,
    pub node: String,
    pub addresses: Vec<IpAddr>,
    /// Where the certificate is kept.
    pub certificate: PathBuf,
    /// Where its key is kept, readable by its owner only.
    pub key: PathBuf,
}

/// When another certificate is to be asked for: at once if what there is, is not for these names.
fn plan_due(present: Option<&Facts>, names: &BTreeSet<String>, jitter: f64) -> SystemTime {
    match present {
        Some(facts) if facts.names == *names => facts.renewal_due(jitter),
        _ => SystemTime::UNIX_EPOCH,
    }
}

// === impl Serving ===

impl Serving {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let names: BTreeSet<String> =
            self.addresses.iter().map(ToString::to_string).chain([self.node.clone()]).collect();
        let mut jitter: f64 = rand::random();
        loop {
            let present = read(&self.certificate).as_deref().and_then(Facts::read);
            let due = plan_due(present.as_ref(), &names, jitter);
            let pause = match due.duration_since(SystemTime::now()) {
                Ok(left) if !left.is_zero() => left.min(LOOK_EVERY),
                _ => {
                    let asked = shutdown.run_until_cancelled(self.ask(&names)).await;
                    let Some(asked) = asked else { return };
                    match asked {
                        Ok(()) => {
                            jitter = rand::random();
                            continue;
                        }
                        Err(error) => {
                            let why = crate::failure::reason(&error);
                            tracing::warn!(why, "no certificate for the kubelet API: {error}");
                            if matches!(error, RequestError::Denied { .. }) { DENIED_AGAIN } else { AGAIN }
                        }
                    }
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Asks, waits for whoever approves, and keeps the certificate.
    async fn ask(&self, names: &BTreeSet<String>) -> Result<(), RequestError> {
        let ask = |source| RequestError::Ask { source: Box::new(source) };
        let client = self.credentials.client(AGENT).map_err(ask)?;
        let purpose = Purpose::Serving { names: names.iter().cloned().collect() };
        let prepared = Prepared::new(&self.node, purpose)?;
        let name = prepared.submit(&client, &self.node).await.map_err(ask)?;
        let certificate_pem = request::certificate(&client, &name, |answer| {
            if *answer == Answer::Undecided {
                tracing::info!(
                    "kubectl logs and exec reach this node's pods when its certificate is approved: kubectl certificate approve {name}"
                );
            }
        })
        .await?;
        if !request::is_for(&certificate_pem, &prepared.key_pem, &self.node) {
            return Err(RequestError::Other { name });
        }
        // Two files: who reads between them sees that they do not belong together, and looks again.
        self.keep(&certificate_pem, &prepared.key_pem).map_err(|source| RequestError::Write { source })?;
        tracing::info!("the kubelet API has a new certificate");
        Ok(())
    }

    fn keep(&self, certificate_pem: &str, key_pem: &str) -> Result<(), FileError> {
        private_files::write_private(&self.key, key_pem.as_bytes())?;
        private_files::write_private(&self.certificate, certificate_pem.as_bytes())
    }
}

fn read(path: &Path) -> Option<String> {
    private_files::read_if_present(path).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::made;

    #[test]
    fn another_is_asked_for_when_there_is_none_when_it_is_for_other_names_and_near_its_end() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds);
        let facts = Facts::read(&made::certificate("n", at(0), at(100)).0).unwrap();
        let names: BTreeSet<String> = ["10.0.0.1", "n"].map(str::to_owned).into();
        assert_eq!(plan_due(Some(&facts), &names, 0.5), at(80));
        assert_eq!(plan_due(None, &names, 0.5), SystemTime::UNIX_EPOCH);
        let more: BTreeSet<String> = ["10.0.0.1", "fd00::1", "n"].map(str::to_owned).into();
        assert_eq!(plan_due(Some(&facts), &more, 0.5), SystemTime::UNIX_EPOCH);
    }
}
