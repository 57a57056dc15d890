//! Regular expressions. Their engine takes time in proportion to text and pattern, whatever the pattern.

use std::borrow::Cow;
use std::collections::HashMap;

use regex::Regex;

use super::no_overload;
use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::Value;

/// A pattern, if it is one and not too large.
pub(crate) fn build(pattern: &str) -> Result<Regex, String> {
    penstock_schema::validation::pattern(pattern)
}

pub(super) fn call<'a>(
    name: &str,
    args: &[Value<'a>],
    patterns: &HashMap<String, Regex>,
    meter: &mut Meter,
) -> Evaluated<'a> {
    let [Value::String(text), Value::String(pattern), rest @ ..] = args else {
        return Err(no_overload(name, args));
    };
    // A quarter of the pattern's length for each tenth of the text's, as upstream.
    meter.spend((text.len() as u64).div_ceil(10).saturating_mul((pattern.len() as u64).div_ceil(4)))?;
    let regex = match patterns.get(&**pattern) {
        Some(known) => Cow::Borrowed(known),
        None => {
            // To build one costs about as much as a thousand steps and more for long ones.
            meter.spend(1_000 + 10 * pattern.len() as u64)?;
            Cow::Owned(build(pattern).map_err(EvaluationError::function)?)
        }
    };
    match (name, rest) {
        ("matches", []) => Ok(Value::Bool(regex.is_match(text))),
        ("find", []) => Ok(Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        ("findAll", []) => Ok(all(&regex, text, usize::MAX)),
        ("findAll", [Value::Int(count)]) => {
            Ok(all(&regex, text, usize::try_from(*count).unwrap_or(usize::MAX)))
        }
        _ => Err(no_overload(name, args)),
    }
}

fn all<'a>(regex: &Regex, text: &str, count_max: usize) -> Value<'a> {
    Value::list(regex.find_iter(text).take(count_max).map(|found| Value::text(found.as_str())).collect())
}
