//! Which values are equal, and which come first.

use std::cmp::Ordering;

use super::{Map, Opaque, Value};
use crate::budget::Meter;
use crate::error::EvaluationError;

/// Whether two values are equal. Numbers are by what they count; values of different types are not equal.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>, meter: &mut Meter) -> Result<bool, EvaluationError> {
    meter.spend_for(a.length().min(b.length()))?;
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (x, y) in a.iter().zip(b.iter()) {
                meter.spend(1)?;
                if !equal(&x, &y, meter)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(a), Value::Map(b)) => maps(a, b, meter)?,
        (Value::Object(a), Value::Object(b)) => {
            if a.name != b.name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for (name, x) in &a.fields {
                meter.spend(1)?;
                let Some((_, y)) = b.fields.iter().find(|(other, _)| other == name) else { return Ok(false) };
                if !equal(x, y, meter)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => equal(a, b, meter)?,
        (Value::Opaque(a), Value::Opaque(b)) => opaque(a, b),
        (a, b) => numbers(a, b) == Some(Ordering::Equal),
    })
}

fn maps(a: &Map<'_>, b: &Map<'_>, meter: &mut Meter) -> Result<bool, EvaluationError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    // Both as they lie: their own names, not those of expressions.
    if let (Map::Json(a, _), Map::Json(b, _)) = (a, b) {
        for (key, x) in *a {
            meter.spend(1)?;
            let Some(y) = b.get(key) else { return Ok(false) };
            if !equal(&Value::of(x), &Value::of(y), meter)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for key in a.keys() {
        meter.spend(1)?;
        let (Some(x), Some(y)) = (a.get(&key), b.get(&key)) else { return Ok(false) };
        if !equal(&x, &y, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn opaque(a: &Opaque, b: &Opaque) -> bool {
    match (a, b) {
        (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
        (Opaque::Url(a), Opaque::Url(b)) => a == b,
        (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
        (Opaque::Cidr(a, n), Opaque::Cidr(b, m)) => a == b && n == m,
        (Opaque::Semver(a), Opaque::Semver(b)) => a.cmp_precedence(b).is_eq(),
        (Opaque::Format(a), Opaque::Format(b)) => a == b,
        _ => false,
    }
}

/// The order of two values of one type, or of two numbers.
pub(crate) fn order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (a, b) => numbers(a, b),
    }
}

fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => a.partial_cmp(&(whole(b)? as f64)),
        (a, Value::Double(b)) => (whole(a)? as f64).partial_cmp(b),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}
