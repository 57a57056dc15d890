//! Formats of strings that have a name.

use std::sync::LazyLock;

use regex::Regex;

use super::no_overload;
use crate::evaluate::Evaluated;
use crate::value::{Opaque, Value};

/// A format: its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format(usize);

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// What a format asks for.
enum Rule {
    /// A pattern of the whole, the most characters, what to say.
    Pattern(&'static str, usize, &'static str),
    /// The same of a prefix: a dash may be the last.
    Prefix(&'static str, usize, &'static str),
    /// A format of JSON Schema, and what to say.
    Schema(&'static str, &'static str),
}

const L: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const S: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const L1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const Q: &str = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]";

const ALL: &[(&str, Rule)] = &[
    ("dns1123Label", Rule::Pattern(L, 63, LABEL)),
    ("dns1123Subdomain", Rule::Pattern(S, 253, SUBDOMAIN)),
    ("dns1035Label", Rule::Pattern(L1035, 63, LABEL_1035)),
    ("qualifiedName", Rule::Pattern(Q, 317, QUALIFIED)),
    ("dns1123LabelPrefix", Rule::Prefix(L, 63, LABEL)),
    ("dns1123SubdomainPrefix", Rule::Prefix(S, 253, SUBDOMAIN)),
    ("dns1035LabelPrefix", Rule::Prefix(L1035, 63, LABEL_1035)),
    ("labelValue", Rule::Pattern("(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", 63, LABEL_VALUE)),
    ("uri", Rule::Schema("uri", "invalid URI")),
    ("uuid", Rule::Schema("uuid", "does not match the UUID format")),
    ("byte", Rule::Schema("byte", "invalid base64")),
    ("date", Rule::Schema("date", "invalid date")),
    ("datetime", Rule::Schema("date-time", "invalid datetime")),
];

/// `format.named("x")` and `format.x()`.
pub(super) fn named<'a>(name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    let find = |name: &str| {
        let index = ALL.iter().position(|(known, _)| *known == name)?;
        Some(Value::Opaque(Opaque::Format(Format(index))))
    };
    match (name, args) {
        ("named", [Value::String(name)]) => Ok(find(name).map_or(Value::Optional(None), Value::some)),
        (name, []) => find(name).ok_or_else(|| no_overload(name, args)),
        _ => Err(no_overload(name, args)),
    }
}

pub(super) fn call<'a>(name: &str, format: Format, args: &[Value<'a>]) -> Evaluated<'a> {
    let ("validate", [_, Value::String(text)]) = (name, args) else { return Err(no_overload(name, args)) };
    let broken = format.broken_by(text);
    if broken.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(broken.into_iter().map(Value::from).collect())))
}

// === impl Format ===

impl Format {
    /// What is wrong with a text.
    fn broken_by(self, text: &str) -> Vec<String> {
        static PATTERNS: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
            let pattern = |rule: &Rule| match rule {
                Rule::Pattern(pattern, ..) | Rule::Prefix(pattern, ..) => {
                    Regex::new(&format!("^(?:{pattern})$")).ok()
                }
                Rule::Schema(..) => None,
            };
            ALL.iter().map(|(_, rule)| pattern(rule)).collect()
        });
        let matches = |text: &str| PATTERNS[self.0].as_ref().is_none_or(|pattern| pattern.is_match(text));
        match &ALL[self.0].1 {
            Rule::Schema(name, message) => {
                let admitted = penstock_schema::validation::is_of_format(name, text).unwrap_or(true);
                if admitted { Vec::new() } else { vec![(*message).to_owned()] }
            }
            Rule::Pattern(_, length_max, message) | Rule::Prefix(_, length_max, message) => {
                let prefix = matches!(ALL[self.0].1, Rule::Prefix(..));
                // A dash at the end will be followed by something.
                let whole = match text.strip_suffix('-') {
                    Some(start) if prefix && !start.is_empty() => format!("{start}-a"),
                    _ => text.to_owned(),
                };
                let mut broken = Vec::new();
                if text.len() > *length_max {
                    broken.push(format!("must be no more than {length_max} bytes"));
                }
                if !matches(&whole) {
                    broken.push((*message).to_owned());
                }
                broken
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_and_schema_format_is_known() {
        for (index, (name, rule)) in ALL.iter().enumerate() {
            let refused = Format(index).broken_by("\u{1}").is_empty();
            assert!(!refused, "{name} takes anything");
            if let Rule::Schema(schema, _) = rule {
                assert!(penstock_schema::validation::is_of_format(schema, "x").is_some(), "{schema}");
            }
        }
    }
}
