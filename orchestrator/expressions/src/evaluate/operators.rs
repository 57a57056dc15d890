//! Operators: what they do to values that have been evaluated.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Evaluated;
use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::library::{no_overload, sets};
use crate::value::{Key, List, Value, equal, order};

const INT: EvaluationError = EvaluationError::Overflow { kind: "integer" };
const UINT: EvaluationError = EvaluationError::Overflow { kind: "unsigned integer" };
const DURATION: EvaluationError = EvaluationError::Overflow { kind: "duration" };
const TIMESTAMP: EvaluationError = EvaluationError::Overflow { kind: "timestamp" };

/// The result of an operator; `None` if the name is not one's.
pub(super) fn call<'a>(name: &str, args: &[Value<'a>], meter: &mut Meter) -> Option<Evaluated<'a>> {
    let result = match (name, args) {
        ("_==_", [a, b]) => equal(a, b, meter).map(Value::Bool),
        ("_!=_", [a, b]) => equal(a, b, meter).map(|is| Value::Bool(!is)),
        ("!_", [Value::Bool(value)]) => Ok(Value::Bool(!value)),
        ("-_", [Value::Int(value)]) => value.checked_neg().map(Value::Int).ok_or(INT),
        ("-_", [Value::Double(value)]) => Ok(Value::Double(-value)),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => compare(name, a, b, meter),
        ("_+_", [a, b]) => add(a, b, meter),
        ("_-_", [a, b]) => subtract(a, b),
        ("_*_" | "_/_" | "_%_", [a, b]) => scale(name, a, b),
        ("@in", [item, Value::List(list)]) => sets::holds(list, item, meter).map(Value::Bool),
        ("@in", [key, Value::Map(map)]) => {
            Ok(Value::Bool(Key::of(key).is_some_and(|key| map.get(&key).is_some())))
        }
        ("!_" | "-_" | "@in", args) => Err(no_overload(name, args)),
        _ => return None,
    };
    Some(result)
}

fn compare<'a>(name: &str, a: &Value<'a>, b: &Value<'a>, meter: &mut Meter) -> Evaluated<'a> {
    meter.spend_for(a.length().min(b.length()))?;
    let ordering = match order(a, b) {
        Some(ordering) => ordering,
        // Not a number is neither less nor more.
        None if matches!(a, Value::Double(_)) || matches!(b, Value::Double(_)) => {
            let numbers =
                |value: &Value<'_>| matches!(value, Value::Double(_) | Value::Int(_) | Value::Uint(_));
            return if numbers(a) && numbers(b) {
                Ok(Value::Bool(false))
            } else {
                Err(no_overload(name, &[a.clone(), b.clone()]))
            };
        }
        None => return Err(no_overload(name, &[a.clone(), b.clone()])),
    };
    Ok(Value::Bool(match name {
        "_<_" => ordering == Ordering::Less,
        "_<=_" => ordering != Ordering::Greater,
        "_>_" => ordering == Ordering::Greater,
        _ => ordering != Ordering::Less,
    }))
}

pub(crate) fn add<'a>(a: &Value<'a>, b: &Value<'a>, meter: &mut Meter) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or(INT),
        (Value::Uint(a), Value::Uint(b)) => a.checked_add(*b).map(Value::Uint).ok_or(UINT),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            meter.spend_for((a.len() + b.len()) as u64)?;
            Ok(Value::from(format!("{}{}", &**a, &**b)))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.spend_for((a.len() + b.len()) as u64)?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            meter.spend((a.len() + b.len()) as u64)?;
            Ok(Value::List(List::Made(Arc::new(a.iter().chain(b.iter()).collect()))))
        }
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).map(Value::Duration).ok_or(DURATION),
        (Value::Timestamp(at), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(at)) => {
            shift(*at, SignedDuration::from_nanos(*nanos))
        }
        (a, b) => Err(no_overload("_+_", &[a.clone(), b.clone()])),
    }
}

fn shift<'a>(at: Timestamp, by: SignedDuration) -> Evaluated<'a> {
    at.checked_add(by).map(Value::Timestamp).map_err(|_| TIMESTAMP)
}

fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_sub(*b).map(Value::Int).ok_or(INT),
        (Value::Uint(a), Value::Uint(b)) => a.checked_sub(*b).map(Value::Uint).ok_or(UINT),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => a.checked_sub(*b).map(Value::Duration).ok_or(DURATION),
        (Value::Timestamp(at), Value::Duration(nanos)) => shift(*at, -SignedDuration::from_nanos(*nanos)),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            i64::try_from(a.as_nanosecond() - b.as_nanosecond()).map(Value::Duration).map_err(|_| DURATION)
        }
        (a, b) => Err(no_overload("_-_", &[a.clone(), b.clone()])),
    }
}

fn scale<'a>(name: &str, a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (name, a, b) {
        ("_*_", Value::Int(a), Value::Int(b)) => a.checked_mul(*b).map(Value::Int).ok_or(INT),
        ("_*_", Value::Uint(a), Value::Uint(b)) => a.checked_mul(*b).map(Value::Uint).ok_or(UINT),
        ("_*_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("_/_", Value::Int(_), Value::Int(0)) | ("_/_", Value::Uint(_), Value::Uint(0)) => {
            Err(EvaluationError::DivisionByZero)
        }
        ("_/_", Value::Int(a), Value::Int(b)) => a.checked_div(*b).map(Value::Int).ok_or(INT),
        ("_/_", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        ("_/_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        ("_%_", Value::Int(_), Value::Int(0)) | ("_%_", Value::Uint(_), Value::Uint(0)) => {
            Err(EvaluationError::ModulusByZero)
        }
        ("_%_", Value::Int(a), Value::Int(b)) => a.checked_rem(*b).map(Value::Int).ok_or(INT),
        ("_%_", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        _ => Err(no_overload(name, &[a.clone(), b.clone()])),
    }
}
