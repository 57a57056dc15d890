//! How names must look, and the sentences that say so.

/// How `metadata.name` must look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, 253 bytes.
    Subdomain,
    /// RFC 1123 label, 63 bytes.
    Label,
    /// RFC 1035 label: starts with a letter.
    Label1035,
    /// Usable as a path segment: no `/`, no `%`, not `.` or `..`.
    PathSegment,
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

impl NameRule {
    /// Why `name` is refused; `None` when it is fine.
    pub fn check(self, name: &str) -> Option<String> {
        match self {
            Self::Subdomain => subdomain(name),
            Self::Label => label(name),
            Self::Label1035 => label_1035(name),
            Self::PathSegment => path_segment(name),
        }
    }
}

fn too_long(name: &str, max: usize) -> Option<String> {
    (name.len() > max).then(|| format!("must be no more than {max} bytes"))
}

fn is_label(name: &str) -> bool {
    let b = name.as_bytes();
    let edge = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    !b.is_empty()
        && b.first().is_some_and(edge)
        && b.last().is_some_and(edge)
        && b.iter().all(|c| edge(c) || *c == b'-')
}

pub fn subdomain(name: &str) -> Option<String> {
    too_long(name, 253).or_else(|| (!name.split('.').all(is_label)).then(|| SUBDOMAIN.to_string()))
}

pub fn label(name: &str) -> Option<String> {
    too_long(name, 63).or_else(|| (!is_label(name)).then(|| LABEL.to_string()))
}

pub fn label_1035(name: &str) -> Option<String> {
    let good = is_label(name) && name.as_bytes()[0].is_ascii_lowercase();
    too_long(name, 63).or_else(|| (!good).then(|| LABEL_1035.to_string()))
}

pub fn path_segment(name: &str) -> Option<String> {
    match name {
        "." | ".." => Some(format!("may not be '{name}'")),
        _ if name.contains('/') => Some("may not contain '/'".into()),
        _ if name.contains('%') => Some("may not contain '%'".into()),
        _ => None,
    }
}

/// `*.` and a subdomain.
pub fn wildcard_subdomain(name: &str) -> Option<String> {
    let good = name.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label));
    too_long(name, 253).or_else(|| (!good).then(|| WILDCARD.to_string()))
}

/// A subdomain and a path below it: `acme.io/foo`.
pub fn domain_prefixed_path(text: &str) -> Option<String> {
    let Some((domain, path)) =
        text.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        return Some("must be a domain-prefixed path (such as \"acme.io/foo\")".into());
    };
    let is_path = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c);
    subdomain(domain).or_else(|| {
        (!path.bytes().all(is_path)).then(|| {
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')".to_string()
        })
    })
}

/// What names a driver of volumes: a subdomain, in any case, of at most 63 bytes.
pub fn csi_driver(text: &str) -> Option<String> {
    too_long(text, 63).or_else(|| subdomain(&text.to_lowercase()))
}

/// A qualified name in any case.
pub fn qualified_name_any_case(text: &str) -> Option<String> {
    qualified_name(&text.to_lowercase())
}

fn is_word(text: &str) -> bool {
    let b = text.as_bytes();
    b.first().is_some_and(u8::is_ascii_alphanumeric)
        && b.last().is_some_and(u8::is_ascii_alphanumeric)
        && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// `name` or `prefix/name`: keys of labels and annotations, finalizers, resource names.
pub fn qualified_name(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '/');
    let first = parts.next().unwrap_or_default();
    let name = match (parts.next(), parts.next()) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                return Some("prefix part must be non-empty".into());
            }
            if let Some(why) = subdomain(first) {
                return Some(format!("prefix part {why}"));
            }
            name
        }
        _ => {
            return Some(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".into(),
            );
        }
    };
    if name.is_empty() {
        return Some("name part must be non-empty".into());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".into());
    }
    (!is_word(name)).then(|| QUALIFIED.to_string())
}

pub fn label_value(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    too_long(text, 63).or_else(|| (!is_word(text)).then(|| LABEL_VALUE.to_string()))
}

/// `http`-like port names: at most 15 lower-case letters, digits and single dashes, with a letter.
pub fn port_name(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > 15 {
        why.push("must be no more than 15 bytes".to_string());
    }
    let b = text.as_bytes();
    if !b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-') || b.is_empty() {
        why.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !b.iter().any(u8::is_ascii_lowercase) {
        why.push("must contain at least one letter (a-z)".to_string());
    }
    if text.contains("--") {
        why.push("must not contain consecutive hyphens".to_string());
    }
    if b.first() == Some(&b'-') || b.last() == Some(&b'-') {
        why.push("must not begin or end with a hyphen".to_string());
    }
    why
}

/// Names of environment variables: any printable ASCII but `=`.
pub fn env_name(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=');
    (!good).then(|| {
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_string()
    })
}

/// Keys of ConfigMaps and Secrets.
pub fn config_key(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 bytes".into());
    }
    let good = !text.is_empty()
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if !good {
        return Some("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into());
    }
    match text {
        "." | ".." => Some(format!("must not be '{text}'")),
        _ if text.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

/// A generated name's random end; letters that spell no words.
pub fn random_suffix() -> String {
    use rand::Rng as _;
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| LETTERS[rng.random_range(0..LETTERS.len())] as char).collect()
}

/// `base` shortened so that the suffix fits, and the suffix.
pub fn generate(base: &str) -> String {
    const BASE_BYTES_MAX: usize = 63 - 5;
    let mut cut = base.len().min(BASE_BYTES_MAX);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{}", &base[..cut], random_suffix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rule() {
        assert!(NameRule::Subdomain.check("a.b-c.d1").is_none());
        assert!(NameRule::Subdomain.check("a..b").is_some());
        assert!(NameRule::Label.check("a.b").is_some());
        assert!(NameRule::Label1035.check("1a").is_some());
        assert!(NameRule::PathSegment.check("system:node:a").is_none());
        assert!(NameRule::PathSegment.check("a/b").is_some());
    }

    #[test]
    fn a_generated_name_fits_a_label() {
        let name = generate(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(label(&name).is_none());
    }

    #[test]
    fn qualified_names_take_one_prefix() {
        assert!(qualified_name("example.com/a_b").is_none());
        assert!(qualified_name("a/b/c").is_some());
        assert!(qualified_name("/b").is_some());
    }
}
