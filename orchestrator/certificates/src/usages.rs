//! What a key may be used for, under the names of the Kubernetes API (certificates.k8s.io/v1 `KeyUsage`), and as
//! certificates say it (RFC 5280 4.2.1.3, 4.2.1.12).

use x509_cert::der::flagset::FlagSet;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsages;

/// How a certificate says one usage.
#[derive(Clone, Copy, Debug)]
enum Said {
    Key(KeyUsages),
    Extended(&'static str),
}

/// Every name of the API.
pub const USAGES: [&str; 23] = {
    let mut names = [""; TABLE.len()];
    let mut i = 0;
    while i < TABLE.len() {
        names[i] = TABLE[i].0;
        i += 1;
    }
    names
};

/// In the order of the alphabet, as refusals list them.
const TABLE: [(&str, Said); 23] = [
    ("any", Said::Extended("2.5.29.37.0")),
    ("cert sign", Said::Key(KeyUsages::KeyCertSign)),
    ("client auth", Said::Extended("1.3.6.1.5.5.7.3.2")),
    ("code signing", Said::Extended("1.3.6.1.5.5.7.3.3")),
    ("content commitment", Said::Key(KeyUsages::NonRepudiation)),
    ("crl sign", Said::Key(KeyUsages::CRLSign)),
    ("data encipherment", Said::Key(KeyUsages::DataEncipherment)),
    ("decipher only", Said::Key(KeyUsages::DecipherOnly)),
    ("digital signature", Said::Key(KeyUsages::DigitalSignature)),
    ("email protection", Said::Extended("1.3.6.1.5.5.7.3.4")),
    ("encipher only", Said::Key(KeyUsages::EncipherOnly)),
    ("ipsec end system", Said::Extended("1.3.6.1.5.5.7.3.5")),
    ("ipsec tunnel", Said::Extended("1.3.6.1.5.5.7.3.6")),
    ("ipsec user", Said::Extended("1.3.6.1.5.5.7.3.7")),
    ("key agreement", Said::Key(KeyUsages::KeyAgreement)),
    ("key encipherment", Said::Key(KeyUsages::KeyEncipherment)),
    ("microsoft sgc", Said::Extended("1.3.6.1.4.1.311.10.3.3")),
    ("netscape sgc", Said::Extended("2.16.840.1.113730.4.1")),
    ("ocsp signing", Said::Extended("1.3.6.1.5.5.7.3.9")),
    ("s/mime", Said::Extended("1.3.6.1.5.5.7.3.4")),
    ("server auth", Said::Extended("1.3.6.1.5.5.7.3.1")),
    ("signing", Said::Key(KeyUsages::DigitalSignature)),
    ("timestamping", Said::Extended("1.3.6.1.5.5.7.3.8")),
];

/// A set of usages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usages {
    pub(crate) key: FlagSet<KeyUsages>,
    pub(crate) extended: Vec<ObjectIdentifier>,
}

/// A usage under no name of the API.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no usage {name:?}")]
pub struct UnknownUsage {
    pub name: String,
}

// === impl Usages ===

impl Usages {
    /// The usages under these names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownUsage> {
        let mut usages = Self::default();
        for name in names {
            let unknown = || UnknownUsage { name: name.to_owned() };
            match TABLE.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?.1 {
                Said::Key(usage) => usages.key |= usage,
                Said::Extended(id) => usages.extended.push(ObjectIdentifier::new(id).map_err(|_| unknown())?),
            }
        }
        usages.extended.sort();
        usages.extended.dedup();
        Ok(usages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usage_can_be_said_and_names_of_one_thing_say_it_once() {
        for name in USAGES {
            let usages = Usages::named([name]).unwrap();
            assert!(!usages.key.is_empty() || usages.extended.len() == 1, "{name}");
        }
        let mail = Usages::named(["s/mime", "email protection", "signing", "digital signature"]).unwrap();
        assert_eq!((mail.extended.len(), mail.key), (1, KeyUsages::DigitalSignature.into()));
        assert_eq!(Usages::named(["x"]), Err(UnknownUsage { name: "x".to_owned() }));
        assert!(USAGES.is_sorted());
    }
}
