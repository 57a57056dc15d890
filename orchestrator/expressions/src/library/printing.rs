//! `format` and `quote`: values as text.

use super::{conversions, no_overload};
use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{List, Value};

/// How many digits behind the point may be asked for.
const PRECISION_MAX: usize = 1_000;
const PRECISION_DEFAULT: usize = 6;

/// Text in quotes, with escapes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// The pattern with its verbs (`%s %d %f %e %b %x %X %o`) replaced by the items.
pub(super) fn format<'a>(pattern: &str, list: &List<'a>, meter: &mut Meter) -> Evaluated<'a> {
    let mut out = String::new();
    let mut rest = pattern;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let digits = after[..end].parse().ok().filter(|n| *n <= PRECISION_MAX);
            precision =
                Some(digits.ok_or_else(|| {
                    EvaluationError::function("could not parse formatting clause: precision")
                })?);
            rest = &after[end..];
        }
        let Some(verb) = rest.chars().next() else {
            return Err(EvaluationError::function(
                "could not parse formatting clause: unexpected end of string",
            ));
        };
        rest = &rest[verb.len_utf8()..];
        let Some(value) = list.get(next) else {
            return Err(EvaluationError::function(format!("index {next} out of range")));
        };
        next += 1;
        let text = clause(verb, precision, &value, meter)?;
        meter.spend_for(text.len() as u64)?;
        out.push_str(&text);
    }
    out.push_str(rest);
    Ok(Value::from(out))
}

fn clause(
    verb: char,
    precision: Option<usize>,
    value: &Value<'_>,
    meter: &mut Meter,
) -> Result<String, EvaluationError> {
    let digits = precision.unwrap_or(PRECISION_DEFAULT);
    let text = match (verb, value) {
        ('s', value) => {
            let mut text = String::new();
            shown(value, &mut text, meter)?;
            text
        }
        ('d', Value::Int(n)) => n.to_string(),
        ('d', Value::Uint(n)) => n.to_string(),
        ('f', Value::Double(n)) => format!("{n:.digits$}"),
        ('f', Value::Int(n)) => format!("{:.digits$}", *n as f64),
        ('e', Value::Double(n)) => exponent(*n, digits),
        ('e', Value::Int(n)) => exponent(*n as f64, digits),
        ('b', Value::Bool(b)) => i32::from(*b).to_string(),
        ('b', Value::Int(n)) => radix(*n, |n| format!("{n:b}")),
        ('b', Value::Uint(n)) => format!("{n:b}"),
        ('o', Value::Int(n)) => radix(*n, |n| format!("{n:o}")),
        ('o', Value::Uint(n)) => format!("{n:o}"),
        ('x', Value::Int(n)) => radix(*n, |n| format!("{n:x}")),
        ('x', Value::Uint(n)) => format!("{n:x}"),
        ('x', Value::String(text)) => hex(text.as_bytes()),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', value @ (Value::Int(_) | Value::Uint(_) | Value::String(_) | Value::Bytes(_))) => {
            clause('x', precision, value, meter)?.to_ascii_uppercase()
        }
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', other) => {
            return Err(no_overload(&format!("%{verb}"), std::slice::from_ref(other)));
        }
        (other, _) => {
            let detail =
                format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"");
            return Err(EvaluationError::function(detail));
        }
    };
    Ok(text)
}

fn radix(n: i64, print: impl Fn(u64) -> String) -> String {
    format!("{}{}", if n < 0 { "-" } else { "" }, print(n.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// As C prints it: at least two digits behind a sign.
fn exponent(n: f64, digits: usize) -> String {
    let text = format!("{n:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, power)) => {
            let power: i32 = power.parse().unwrap_or_default();
            format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
        }
        None => text,
    }
}

fn shown(value: &Value<'_>, out: &mut String, meter: &mut Meter) -> Result<(), EvaluationError> {
    meter.spend(1)?;
    meter.spend_for(value.length())?;
    match value {
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                shown(&item, out, meter)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (index, key) in map.keys().into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&key.to_string());
                out.push_str(": ");
                if let Some(value) = map.get(&key) {
                    shown(&value, out, meter)?;
                }
            }
            out.push('}');
        }
        Value::Null => out.push_str("null"),
        Value::Type(name) => out.push_str(name),
        other => {
            out.push_str(
                &conversions::text(other).ok_or_else(|| no_overload("%s", std::slice::from_ref(other)))?,
            );
        }
    }
    Ok(())
}
