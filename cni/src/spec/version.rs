//! Which versions of the specification are spoken, and what differs between them.
//!
//! It exists so that no verb compares version strings. It must not know any verb.

use super::{Code, Failure};

/// Every version answered, oldest first. 0.1.0 and 0.2.0 have another result shape, and no runtime that speaks
/// CRI v1 asks for them.
pub const SUPPORTED: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// One of [`SUPPORTED`], ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(usize);

impl Version {
    /// The version named `text`, or error 1.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        SUPPORTED.iter().position(|known| *known == text).map(Self).ok_or_else(|| {
            Failure::new(Code::IncompatibleVersion, format!("cniVersion {text:?} is not supported"))
                .details(format!("supported: {}", SUPPORTED.join(", ")))
        })
    }

    /// The newest version spoken.
    pub fn newest() -> Self {
        Self(SUPPORTED.len() - 1)
    }

    /// As the specification writes it.
    pub fn as_str(self) -> &'static str {
        SUPPORTED[self.0]
    }

    /// Up to 0.4.0 every address says its family in a field `version`.
    pub fn addresses_name_their_family(self) -> bool {
        self.as_str() < "1.0.0"
    }

    /// CHECK came with 0.4.0.
    pub fn has_check(self) -> bool {
        self.as_str() >= "0.4.0"
    }

    /// GC, STATUS and an interface's `mtu` came with 1.1.0.
    pub fn is_1_1(self) -> bool {
        self.as_str() >= "1.1.0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_nobody_wrote_is_error_1() {
        assert_eq!(Version::parse("9.9.9").unwrap_err().code, Code::IncompatibleVersion);
        assert_eq!(Version::parse("").unwrap_err().code, Code::IncompatibleVersion);
    }

    #[test]
    fn verbs_appear_with_the_version_that_brought_them() {
        let checks: Vec<_> = SUPPORTED.iter().filter(|v| Version::parse(v).unwrap().has_check()).collect();
        assert_eq!(checks, [&"0.4.0", &"1.0.0", &"1.1.0"]);
        assert!(Version::newest().is_1_1());
        assert!(!Version::parse("1.0.0").unwrap().is_1_1());
    }
}
