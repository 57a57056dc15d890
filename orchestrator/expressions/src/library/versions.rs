//! Semantic versions.

use std::sync::Arc;

use semver::Version;

use super::no_overload;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{Opaque, Value};

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    let parse = |text: &str, normalize: bool| {
        if normalize { Version::parse(&normalized(text)) } else { Version::parse(text) }
    };
    match (name, args) {
        ("isSemver", [Value::String(text)]) => Ok(Value::Bool(parse(text, false).is_ok())),
        ("isSemver", [Value::String(text), Value::Bool(lenient)]) => {
            Ok(Value::Bool(parse(text, *lenient).is_ok()))
        }
        ("semver", [Value::String(text)]) => value(parse(text, false)),
        ("semver", [Value::String(text), Value::Bool(lenient)]) => value(parse(text, *lenient)),
        ("major", [Value::Opaque(Opaque::Semver(version))]) => part(version.major),
        ("minor", [Value::Opaque(Opaque::Semver(version))]) => part(version.minor),
        ("patch", [Value::Opaque(Opaque::Semver(version))]) => part(version.patch),
        (name, [Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))]) => {
            let ordering = a.cmp_precedence(b);
            match name {
                "isGreaterThan" => Ok(Value::Bool(ordering.is_gt())),
                "isLessThan" => Ok(Value::Bool(ordering.is_lt())),
                "compareTo" => Ok(Value::Int(ordering as i64)),
                _ => Err(no_overload(name, args)),
            }
        }
        _ => Err(no_overload(name, args)),
    }
}

fn value<'a>(parsed: Result<Version, semver::Error>) -> Evaluated<'a> {
    parsed
        .map(|version| Value::Opaque(Opaque::Semver(Arc::new(version))))
        .map_err(|error| EvaluationError::function(error.to_string()))
}

fn part<'a>(number: u64) -> Evaluated<'a> {
    i64::try_from(number).map(Value::Int).map_err(|_| EvaluationError::Overflow { kind: "integer" })
}

/// Three numbers without a `v` and without leading zeros, as far as that can be made of the text.
fn normalized(text: &str) -> String {
    let text = text.trim_start_matches('v');
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            other => other,
        })
        .collect();
    while parts.len() < 3 {
        parts.push("0");
    }
    format!("{}{rest}", parts.join("."))
}
