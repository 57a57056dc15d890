//! The certificate that the kubelet API shows: that of its files, or one signed by itself while there are none.
//!
//! The files are looked at again when somebody connects, so that a new certificate is shown without a restart, whoever wrote
//! it. Files that cannot be used (half of a pair was exchanged, say) change nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::{PodsConfig, PodsError};

/// The files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct ServingKey {
    files: Option<Files>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug)]
struct State {
    key: Arc<CertifiedKey>,
    /// When the files that are shown were written.
    written: Option<Written>,
    looked_at: Instant,
}

type Written = [SystemTime; 2];

// === impl Files ===

impl Files {
    fn written(&self) -> Option<Written> {
        let of = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified()).ok();
        Some([of(&self.certificate)?, of(&self.key)?])
    }

    fn read(&self) -> Result<CertifiedKey, PodsError> {
        let wrong = |path: &Path, error: &dyn std::fmt::Display| PodsError::Certificate {
            message: format!("{}: {error}", path.display()),
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.certificate)
            .map_err(|error| wrong(&self.certificate, &error))?
            .collect();
        let chain = chain.map_err(|error| wrong(&self.certificate, &error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, &error))?;
        certified(chain, &key).map_err(|error| wrong(&self.certificate, &error))
    }
}

// === impl ServingKey ===

impl ServingKey {
    /// # Errors
    /// Files that are there and cannot be used.
    pub fn new(config: &PodsConfig) -> Result<Self, PodsError> {
        let files = config.serving_cert.clone().zip(config.serving_key.clone());
        let files = files.map(|(certificate, key)| Files { certificate, key });
        let written = files.as_ref().and_then(Files::written);
        let key = match &files {
            Some(files) if written.is_some() => files.read()?,
            _ => self_signed(config)?,
        };
        let state = State { key: Arc::new(key), written, looked_at: Instant::now() };
        Ok(Self { files, state: Mutex::new(state) })
    }

    /// The certificate of now.
    fn key(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut state = self.state.lock();
        if let Some(files) = &self.files
            && now.duration_since(state.looked_at) >= LOOK_EVERY
        {
            state.looked_at = now;
            let written = files.written();
            if written.is_some() && written != state.written {
                match files.read() {
                    Ok(key) => {
                        (state.key, state.written) = (Arc::new(key), written);
                        tracing::info!("the kubelet API shows the new certificate of its files");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the kubelet API goes on with the certificate it has")
                    }
                }
            }
        }
        state.key.clone()
    }
}

impl ResolvesServerCert for ServingKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key(Instant::now()))
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, any_supported_type(key)?);
    certified.keys_match()?;
    Ok(certified)
}

fn self_signed(config: &PodsConfig) -> Result<CertifiedKey, PodsError> {
    let wrong = |error: &dyn std::fmt::Display| PodsError::Certificate { message: error.to_string() };
    let names = [vec![config.node_name.clone()], config.node_ip_texts()].concat();
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|error| wrong(&error))?;
    certified(vec![made.cert.der().clone()], &key).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["n".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    struct Lab {
        directory: tempfile::TempDir,
        config: PodsConfig,
    }

    impl Lab {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut config = PodsConfig::new("n", vec!["10.0.0.1".parse().unwrap()], directory.path());
            config.serving_cert = Some(directory.path().join("crt"));
            config.serving_key = Some(directory.path().join("key"));
            Self { directory, config }
        }

        /// Files have a time of writing, which a test must not wait for.
        fn write(&self, name: &str, text: &str, second: u64) {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        }
    }

    fn shown(key: &ServingKey, second: u64) -> Vec<u8> {
        let now = Instant::now() + Duration::from_secs(second);
        key.key(now).cert[0].to_vec()
    }

    fn der(pem: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
    }

    #[test]
    fn a_certificate_of_its_own_serves_until_there_are_files_and_new_files_are_shown() {
        let lab = Lab::new();
        let key = ServingKey::new(&lab.config).unwrap();
        let own = shown(&key, 10);
        let (first, second) = (pair(), pair());
        lab.write("key", &first.1, 1);
        assert_eq!(shown(&key, 20), own, "a key alone is nothing");
        lab.write("crt", &first.0, 1);
        assert_eq!(shown(&key, 30), der(&first.0));

        // Halves of two pairs, as who exchanges both leaves them for a moment.
        lab.write("key", &second.1, 2);
        assert_eq!(shown(&key, 40), der(&first.0));
        lab.write("crt", &second.0, 2);
        assert_eq!(shown(&key, 50), der(&second.0));
        for name in ["crt", "key"] {
            std::fs::remove_file(lab.directory.path().join(name)).unwrap();
        }
        assert_eq!(shown(&key, 60), der(&second.0));
    }

    #[test]
    fn files_that_are_there_and_wrong_are_refused_at_the_start() {
        let lab = Lab::new();
        lab.write("crt", &pair().0, 1);
        lab.write("key", &pair().1, 1);
        assert!(ServingKey::new(&lab.config).unwrap_err().to_string().contains("crt"));
        lab.write("key", "no key", 1);
        assert!(ServingKey::new(&lab.config).unwrap_err().to_string().contains("key"));
    }
}
