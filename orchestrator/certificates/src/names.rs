//! Alternative names: what a certificate is for besides its subject.

use std::fmt;
use std::net::IpAddr;

use x509_cert::der;
use x509_cert::der::asn1::Ia5String;
use x509_cert::ext::pkix::name;
use x509_parser::extensions::GeneralName;

/// The kinds of names that are handed on from a request. Others (directory names, registered ids) are not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlternativeName {
    Dns(String),
    Address(IpAddr),
    Email(String),
    Uri(String),
}

// === impl AlternativeName ===

impl AlternativeName {
    /// An address where the text is one, else a DNS name.
    pub fn of_server(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Address)
    }

    /// `None` for kinds that are not handed on; an error for what is malformed.
    pub(crate) fn read(name: &GeneralName<'_>) -> Result<Option<Self>, &'static str> {
        Ok(Some(match name {
            GeneralName::DNSName(name) => Self::Dns((*name).to_owned()),
            GeneralName::RFC822Name(name) => Self::Email((*name).to_owned()),
            GeneralName::URI(name) => Self::Uri((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                Self::Address(address(bytes).ok_or("an IP address has 4 or 16 bytes")?)
            }
            GeneralName::Invalid(..) => return Err("an alternative name cannot be read"),
            _ => return Ok(None),
        }))
    }

    pub(crate) fn encode(&self) -> der::Result<name::GeneralName> {
        Ok(match self {
            Self::Dns(name) => name::GeneralName::DnsName(Ia5String::new(name)?),
            Self::Email(name) => name::GeneralName::Rfc822Name(Ia5String::new(name)?),
            Self::Uri(name) => name::GeneralName::UniformResourceIdentifier(Ia5String::new(name)?),
            Self::Address(address) => name::GeneralName::from(*address),
        })
    }
}

impl fmt::Display for AlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Email(name) | Self::Uri(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
