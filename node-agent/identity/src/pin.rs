//! The hash of the authority's public key, by which a machine that joins recognises the cluster.

use std::fmt::{self, Write};
use std::str::FromStr;

use ring::digest;
use x509_parser::pem::Pem;

const BYTES: usize = 32;

/// `sha256:` and the digest of a certificate's SubjectPublicKeyInfo in hexadecimal, as kubeadm has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; BYTES]);

/// A text of certificates that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unreadable {
    pub why: String,
}

// === impl KeyHash ===

impl KeyHash {
    fn of(public_key: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, public_key).as_ref());
        Self(bytes)
    }
}

/// The hash of each certificate of a PEM text.
pub(crate) fn hashes(pem: &str) -> Result<Vec<KeyHash>, Unreadable> {
    let unreadable = |why: String| Unreadable { why };
    let mut hashes = Vec::new();
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| unreadable(error.to_string()))?;
        let certificate = block.parse_x509().map_err(|error| unreadable(error.to_string()))?;
        hashes.push(KeyHash::of(certificate.public_key().raw));
    }
    if hashes.is_empty() { Err(unreadable("it has no certificate".to_owned())) } else { Ok(hashes) }
}

impl FromStr for KeyHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("a hash is sha256: and {} hexadecimal digits", 2 * BYTES);
        let digits = text.trim().to_ascii_lowercase();
        let digits = digits.strip_prefix("sha256:").ok_or_else(wrong)?;
        if digits.len() != 2 * BYTES || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Several, for a message.
pub(crate) fn listed(hashes: &[KeyHash]) -> String {
    let mut text = String::new();
    for hash in hashes {
        let _ = write!(text, "{}{hash}", if text.is_empty() { "" } else { "," });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and the hash that `openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256` says.
    #[test]
    fn a_hash_is_written_and_read_as_others_do() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        // Of nothing, which everybody knows.
        assert_eq!(KeyHash::of(b"").to_string(), text);
        assert_eq!(text.to_uppercase().replace("SHA", "sha").parse(), Ok(KeyHash::of(b"")));
        for wrong in
            ["", "e3b0", "sha512:e3b0", "sha256:e3b0", &text[..text.len() - 1], &text.replace('e', "g")]
        {
            assert!(wrong.parse::<KeyHash>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_certificate_of_a_bundle_has_its_hash() {
        let pem = |key: &rcgen::KeyPair| rcgen::CertificateParams::default().self_signed(key).unwrap().pem();
        let (one, two) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let both = hashes(&format!("{}{}", pem(&one), pem(&two))).unwrap();
        let of = |key: &rcgen::KeyPair| KeyHash::of(&rcgen::PublicKeyData::subject_public_key_info(key));
        assert_eq!(both, [of(&one), of(&two)]);
        assert!(hashes("").is_err() && hashes("text").is_err());
    }
}
