//! What a certificate says that matters to whoever holds it. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use penstock_process::renewal;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

const NODE_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";

/// The first certificate of a PEM text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and addresses of a server.
    pub names: BTreeSet<String>,
    pub begins_at: SystemTime,
    pub ends_at: SystemTime,
}

// === impl Facts ===

impl Facts {
    /// `None` for what is no certificate.
    pub fn read(pem: &str) -> Option<Self> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = block.parse_x509().ok()?;
        let at = |time: x509_parser::time::ASN1Time| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
        };
        let subject = certificate.subject();
        let organizations = subject.iter_organization().filter_map(|it| it.as_str().ok()).map(str::to_owned);
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|it| it.value.general_names.iter()).filter_map(text);
        Some(Self {
            common_name: subject.iter_common_name().next()?.as_str().ok()?.to_owned(),
            organizations: organizations.collect(),
            names: names.collect(),
            begins_at: at(certificate.validity().not_before),
            ends_at: at(certificate.validity().not_after),
        })
    }

    /// The node it is for, if it is one's.
    pub fn node(&self) -> Option<&str> {
        let is_nodes = self.organizations == [NODE_GROUP];
        self.common_name.strip_prefix(NODE_USER_PREFIX).filter(|name| is_nodes && !name.is_empty())
    }

    /// When it is to be renewed; `jitter` is from 0 to 1.
    pub fn renewal_due(&self, jitter: f64) -> SystemTime {
        renewal::due(self.begins_at, self.ends_at, jitter)
    }
}

/// The user a node is.
pub fn user_of(node: &str) -> String {
    format!("{NODE_USER_PREFIX}{node}")
}

/// The group nodes are in.
pub fn group() -> &'static str {
    NODE_GROUP
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Certificates for the tests of this crate.
#[cfg(test)]
pub(crate) mod made {
    use std::time::SystemTime;

    /// A certificate of a node, signed by itself, and its key; PEM.
    pub fn certificate(node: &str, begins_at: SystemTime, ends_at: SystemTime) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["10.0.0.1".to_owned(), node.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, super::group());
        params.distinguished_name.push(rcgen::DnType::CommonName, super::user_of(node));
        params.not_before = begins_at.into();
        params.not_after = ends_at.into();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_certificate_is_told_from_others_and_says_when_it_is_due() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (pem, _) = made::certificate("node-1", now, now + Duration::from_secs(1000));
        let facts = Facts::read(&pem).unwrap();
        assert_eq!(facts.node(), Some("node-1"));
        assert_eq!(facts.names, ["10.0.0.1".to_owned(), "node-1".to_owned()].into());
        assert_eq!(facts.renewal_due(0.0), now + Duration::from_secs(700));
        let other = Facts { organizations: vec!["system:masters".to_owned()], ..facts.clone() };
        assert_eq!(other.node(), None);
        assert_eq!(Facts { common_name: "jane".to_owned(), ..facts }.node(), None);
        assert_eq!(Facts::read("text"), None);
    }
}
