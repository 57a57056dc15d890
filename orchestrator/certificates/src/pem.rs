//! Chains of certificates as PEM: whether a text is one, and when its first ends.

use std::time::{Duration, SystemTime};

use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a text that ought to be certificates is instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("must contain at least one CERTIFICATE PEM block")]
    Empty,
    #[error("the PEM block {index} cannot be read: {why}")]
    Block { index: usize, why: String },
    #[error("only CERTIFICATE PEM blocks are allowed, found {label:?}")]
    Label { label: String },
    #[error("the certificate in PEM block {index} cannot be read: {why}")]
    Certificate { index: usize, why: String },
}

/// Checks that a text is one certificate or more, and nothing else in PEM.
pub fn check_chain(text: &[u8]) -> Result<(), ChainError> {
    let mut found = false;
    for (index, block) in Pem::iter_from_buffer(text).enumerate() {
        let block = block.map_err(|error| ChainError::Block { index, why: error.to_string() })?;
        if block.label != "CERTIFICATE" {
            return Err(ChainError::Label { label: block.label });
        }
        let read = |why: String| ChainError::Certificate { index, why };
        let (rest, _) =
            X509Certificate::from_der(&block.contents).map_err(|error| read(error.to_string()))?;
        if !rest.is_empty() {
            return Err(read("something follows it".to_owned()));
        }
        found = true;
    }
    if found { Ok(()) } else { Err(ChainError::Empty) }
}

/// When the first certificate of a text ends; `None` if there is none that can be read.
pub fn expiry(text: &[u8]) -> Option<SystemTime> {
    let (_, block) = parse_x509_pem(text).ok()?;
    let seconds = block.parse_x509().ok()?.validity().not_after.timestamp();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
