//! Scalars: what a JSON scalar must look like to stand in a field, and its one normal form.
//!
//! The decoders differ in where scalars come from, not in what they accept; that is said here once.

pub mod duration;
pub(crate) mod quantity;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Number, Value};

use crate::model::Type;

/// A scalar as a document gives it.
#[derive(Clone)]
pub(crate) enum Scalar<'a> {
    Bool(bool),
    Int(i64),
    /// An integer beyond `i64`.
    Unsigned(u64),
    Float(f64),
    Str(Cow<'a, str>),
}

impl Scalar<'_> {
    /// What upstream's JSON decoder calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Scalar::Bool(_) => "bool",
            Scalar::Int(_) | Scalar::Unsigned(_) | Scalar::Float(_) => "number",
            Scalar::Str(_) => "string",
        }
    }

    pub fn into_value(self) -> Value {
        match self {
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Int(i) => Value::from(i),
            Scalar::Unsigned(u) => Value::from(u),
            Scalar::Float(f) => Number::from_f64(f).map_or(Value::Null, Value::Number),
            Scalar::Str(s) => Value::String(s.into_owned()),
        }
    }
}

/// Why a scalar may not stand in a field.
pub(crate) enum Refusal {
    /// The wrong JSON type.
    Type,
    /// The right JSON type in the wrong form.
    Form(String),
}

/// The scalar's normal form in a field of this type; null means absent. `lenient` admits what YAML 1.1 writes
/// without quotes: `yes`, `off`, `0644`.
pub(crate) fn accept(ty: &Type, scalar: Scalar<'_>, lenient: bool) -> Result<Value, Refusal> {
    match (ty, scalar) {
        (Type::Raw, scalar) => Ok(scalar.into_value()),
        (Type::Bool, Scalar::Bool(b)) => Ok(Value::Bool(b)),
        (Type::Bool, Scalar::Str(s)) if lenient => match &*s {
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(Value::Bool(true)),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(Value::Bool(false)),
            _ => Err(Refusal::Type),
        },
        (Type::Int32, Scalar::Int(i)) if i32::try_from(i).is_ok() => Ok(Value::from(i)),
        (Type::Int64, Scalar::Int(i)) => Ok(Value::from(i)),
        (Type::Int32 | Type::Int64, Scalar::Str(s)) if lenient => {
            octal(&s).map(Value::from).ok_or(Refusal::Type)
        }
        (Type::Double, Scalar::Int(i)) => Ok(Value::from(i)),
        (Type::Double, Scalar::Unsigned(u)) => Ok(Value::from(u)),
        (Type::Double, Scalar::Float(f)) => Number::from_f64(f).map(Value::Number).ok_or(Refusal::Type),
        (Type::String, Scalar::Str(s)) => Ok(Value::String(s.into_owned())),
        (Type::Bytes, Scalar::Str(s)) => bytes(s),
        (Type::Time, Scalar::Str(s)) => time(s, false),
        (Type::MicroTime, Scalar::Str(s)) => time(s, true),
        (Type::Duration, Scalar::Str(s)) => match duration::parse(&s) {
            Some(nanos) => Ok(Value::String(duration::print(nanos))),
            None => Err(Refusal::Form(format!("time: invalid duration {s:?}"))),
        },
        (
            Type::Quantity,
            scalar @ (Scalar::Str(_) | Scalar::Int(_) | Scalar::Unsigned(_) | Scalar::Float(_)),
        ) => {
            let text = match scalar {
                Scalar::Str(s) => s,
                other => Cow::Owned(other.into_value().to_string()),
            };
            match quantity::canonical(text.trim()) {
                Some(canonical) => Ok(Value::String(canonical)),
                None => Err(Refusal::Form(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into(),
                )),
            }
        }
        (Type::IntOrString, Scalar::Int(i)) if i32::try_from(i).is_ok() => Ok(Value::from(i)),
        (Type::IntOrString, Scalar::Str(s)) => Ok(Value::String(s.into_owned())),
        (Type::SchemaOr(crate::Alternative::Bool, _), Scalar::Bool(b)) => Ok(Value::Bool(b)),
        _ => Err(Refusal::Type),
    }
}

/// Whether text is a duration as Go writes them.
pub(crate) fn is_duration(text: &str) -> bool {
    duration::parse(text).is_some()
}

/// `0644` and `0o644`.
fn octal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'))?;
    i64::from_str_radix(digits, 8).ok()
}

fn bytes(text: Cow<'_, str>) -> Result<Value, Refusal> {
    // Go's decoder skips line breaks within base64.
    let text = if text.contains(['\r', '\n']) { Cow::Owned(text.replace(['\r', '\n'], "")) } else { text };
    match STANDARD.decode(text.as_bytes()) {
        Ok(_) => Ok(Value::String(text.into_owned())),
        Err(error) => Err(Refusal::Form(format!("illegal base64 data: {error}"))),
    }
}

/// A time in UTC, to the second or to the microsecond. Go's zero time and the empty string mean absent.
fn time(text: Cow<'_, str>, micro: bool) -> Result<Value, Refusal> {
    if text.is_empty() || text == "0001-01-01T00:00:00Z" {
        return Ok(Value::Null);
    }
    let refuse =
        || Refusal::Form(format!("parsing time {text:?}: expected RFC 3339, such as 2006-01-02T15:04:05Z"));
    let at: Timestamp = text.parse().map_err(|_| refuse())?;
    let printed = if micro {
        print_micro_time(at)
    } else if text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' {
        text.into_owned()
    } else {
        print_time(at)
    };
    Ok(Value::String(printed))
}

/// RFC 3339 in UTC to the second.
pub(crate) fn print_time(at: Timestamp) -> String {
    let floor = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
    Timestamp::from_second(floor).unwrap_or(at).to_string()
}

/// RFC 3339 in UTC with six digits of fraction.
pub(crate) fn print_micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ty: Type, scalar: &str) -> Option<String> {
        match accept(&ty, Scalar::Str(scalar.into()), false) {
            Ok(Value::String(s)) => Some(s),
            _ => None,
        }
    }

    #[test]
    fn times_become_utc_to_the_second() {
        assert_eq!(text(Type::Time, "2026-01-02T03:04:05+02:00").as_deref(), Some("2026-01-02T01:04:05Z"));
        assert_eq!(text(Type::Time, "2026-01-02T03:04:05.9Z").as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(
            text(Type::MicroTime, "2026-01-02T03:04:05Z").as_deref(),
            Some("2026-01-02T03:04:05.000000Z")
        );
        assert_eq!(text(Type::Time, "yesterday"), None);
    }

    #[test]
    fn an_integer_must_fit_its_field() {
        assert!(accept(&Type::Int32, Scalar::Int(i64::from(i32::MAX) + 1), false).is_err());
        assert!(accept(&Type::Int64, Scalar::Int(i64::MAX), false).is_ok());
        assert!(accept(&Type::Int32, Scalar::Float(1.0), false).is_err());
    }

    #[test]
    fn octal_modes_and_yes_are_read_from_yaml_only() {
        assert_eq!(accept(&Type::Int32, Scalar::Str("0644".into()), true).ok(), Some(Value::from(420)));
        assert!(accept(&Type::Int32, Scalar::Str("0644".into()), false).is_err());
        assert_eq!(accept(&Type::Bool, Scalar::Str("yes".into()), true).ok(), Some(Value::Bool(true)));
    }
}
