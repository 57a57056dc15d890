//! String formats a CRD's schema may ask for. Formats nobody knows are ignored, as upstream does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Timestamp, civil};
use regex::Regex;

use crate::scalar;

/// A format by its name and its check.
#[derive(Clone, Copy)]
pub(super) struct Format {
    name: &'static str,
    admits: fn(&str) -> bool,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// By upstream's names, without dashes.
const FORMATS: &[(&str, Format)] = &[
    ("bsonobjectid", Format { name: "bsonobjectid", admits: |t| matches(&BSON, t) }),
    ("byte", Format { name: "byte", admits: |t| STANDARD.decode(t).is_ok() }),
    ("cidr", Format { name: "cidr", admits: is_cidr }),
    ("creditcard", Format { name: "creditcard", admits: |t| matches(&CREDIT_CARD, &digits(t)) }),
    ("date", Format { name: "date", admits: |t| t.parse::<civil::Date>().is_ok() && t.len() == 10 }),
    ("datetime", Format { name: "date-time", admits: |t| t.parse::<Timestamp>().is_ok() }),
    ("duration", Format { name: "duration", admits: scalar::is_duration }),
    ("email", Format { name: "email", admits: |t| matches(&EMAIL, t) }),
    ("hexcolor", Format { name: "hexcolor", admits: |t| matches(&HEX_COLOR, t) }),
    ("hostname", Format { name: "hostname", admits: |t| t.len() <= 255 && matches(&HOSTNAME, t) }),
    ("ipv4", Format { name: "ipv4", admits: |t| t.parse::<Ipv4Addr>().is_ok() }),
    ("ipv6", Format { name: "ipv6", admits: |t| t.parse::<Ipv6Addr>().is_ok() }),
    ("isbn", Format { name: "isbn", admits: |t| is_isbn10(t) || is_isbn13(t) }),
    ("isbn10", Format { name: "isbn10", admits: is_isbn10 }),
    ("isbn13", Format { name: "isbn13", admits: is_isbn13 }),
    ("k8slongname", Format { name: "k8s-long-name", admits: |t| t.len() <= 253 && matches(&LONG_NAME, t) }),
    ("k8sshortname", Format { name: "k8s-short-name", admits: |t| t.len() <= 63 && matches(&SHORT_NAME, t) }),
    ("mac", Format { name: "mac", admits: |t| matches(&MAC, t) }),
    ("password", Format { name: "password", admits: |_| true }),
    ("rgbcolor", Format { name: "rgbcolor", admits: |t| matches(&RGB_COLOR, t) }),
    ("ssn", Format { name: "ssn", admits: |t| matches(&SSN, t) }),
    ("uri", Format { name: "uri", admits: |t| matches(&URI, t) }),
    ("uuid", Format { name: "uuid", admits: |t| matches(&UUID, t) }),
    ("uuid3", Format { name: "uuid3", admits: |t| matches(&UUID, t) && version_of(t) == Some('3') }),
    ("uuid4", Format { name: "uuid4", admits: |t| matches(&UUID, t) && version_of(t) == Some('4') }),
    ("uuid5", Format { name: "uuid5", admits: |t| matches(&UUID, t) && version_of(t) == Some('5') }),
];

static BSON: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[0-9a-fA-F]{24}$").ok());
static CREDIT_CARD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[0-9]{13,16}$").ok());
static EMAIL: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[^@\s<>]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$").ok());
static HEX_COLOR: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$").ok());
static HOSTNAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
    Regex::new(&format!(r"^{label}(\.{label})*\.?$")).ok()
});
static LONG_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
    Regex::new(&format!(r"^{label}(\.{label})*$")).ok()
});
static SHORT_NAME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$").ok());
static MAC: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2})$|^([0-9a-fA-F]{4}[.]){2}[0-9a-fA-F]{4}$").ok()
});
static RGB_COLOR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let part = r"\s*(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\s*";
    Regex::new(&format!(r"^rgb\({part},{part},{part}\)$")).ok()
});
static SSN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$").ok());
static URI: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^([A-Za-z][A-Za-z0-9+.-]*:[^\s]+|/[^\s]*)$").ok());
static UUID: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").ok()
});

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn version_of(uuid: &str) -> Option<char> {
    uuid.chars().filter(|c| *c != '-').nth(12)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= max)
}

fn is_isbn10(text: &str) -> bool {
    let signs: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let values = signs.iter().enumerate().map(|(at, c)| match c {
        'X' | 'x' if at == 9 => Some(10),
        c => c.to_digit(10),
    });
    let sum: Option<u32> = values.zip(1..).map(|(value, place)| Some(value? * place)).sum();
    signs.len() == 10 && sum.is_some_and(|sum| sum % 11 == 0)
}

fn is_isbn13(text: &str) -> bool {
    let signs: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let values = signs.iter().map(|c| c.to_digit(10));
    let sum: Option<u32> =
        values.enumerate().map(|(at, value)| Some(value? * if at % 2 == 0 { 1 } else { 3 })).sum();
    signs.len() == 13 && sum.is_some_and(|sum| sum % 10 == 0)
}

// === impl Format ===

impl Format {
    /// The format of that name, in which dashes do not count; none for one that nobody knows.
    pub(super) fn named(name: &str) -> Option<Format> {
        let name = name.replace('-', "");
        FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    pub(super) fn name(self) -> &'static str {
        self.name
    }

    pub(super) fn admits(self, text: &str) -> bool {
        (self.admits)(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: &str, good: &[&str], bad: &[&str]) {
        let format = Format::named(format).unwrap();
        good.iter().for_each(|text| assert!(format.admits(text), "{text}"));
        bad.iter().for_each(|text| assert!(!format.admits(text), "{text}"));
    }

    #[test]
    fn formats_admit_what_they_name() {
        check("ipv4", &["10.0.0.1"], &["10.0.0", "::1", "x"]);
        check("ipv6", &["::1"], &["10.0.0.1"]);
        check("cidr", &["10.0.0.0/8", "fd00::/8"], &["10.0.0.0", "10.0.0.0/33", "x/1"]);
        check("date", &["2026-01-02"], &["2026-13-02", "2026-01-02T00:00:00Z"]);
        check("date-time", &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.1+02:00"], &["2026-01-02", "now"]);
        check("duration", &["1h2m"], &["1 parsec"]);
        check("hostname", &["a.example.com"], &["-a", "a b"]);
        check("uuid4", &["f47ac10b-58cc-4372-a567-0e02b2c3d479"], &["f47ac10b-58cc-1372-a567-0e02b2c3d479"]);
        check("isbn", &["0321751043", "978-0321751041"], &["0321751044"]);
        check("byte", &["eA=="], &["x"]);
        assert!(Format::named("colour").is_none());
        assert!(FORMATS.iter().all(|(name, _)| Format::named(name).is_some()));
    }

    #[test]
    fn every_pattern_compiles() {
        let all = [
            &BSON,
            &CREDIT_CARD,
            &EMAIL,
            &HEX_COLOR,
            &HOSTNAME,
            &LONG_NAME,
            &SHORT_NAME,
            &MAC,
            &RGB_COLOR,
            &SSN,
            &URI,
            &UUID,
        ];
        assert!(all.iter().all(|pattern| pattern.is_some()));
    }
}
