//! Between types: `int("1")`, `string(true)`, `type(x)`, `size(x)`.

use std::sync::Arc;

use jiff::Timestamp;

use super::{no_overload, times};
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{Opaque, Value};

/// Names that are functions of strings here, not in `strings`.
pub(super) const NAMES: &[&str] =
    &["size", "type", "dyn", "int", "uint", "double", "bool", "string", "bytes", "duration", "timestamp"];

pub(super) fn call<'a>(name: &str, args: Vec<Value<'a>>) -> Evaluated<'a> {
    let mut args = args;
    let (Some(value), true) = (args.pop(), args.is_empty()) else { return Err(no_overload(name, &args)) };
    match name {
        "dyn" => Ok(value),
        "type" => Ok(Value::Type(value.type_name().into())),
        "size" => size(&value),
        "int" => int(&value),
        "uint" => uint(&value),
        "double" => double(&value),
        "bool" => match &value {
            Value::Bool(_) => Ok(value),
            Value::String(text) => match &**text {
                "1" | "t" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                other => refused(other, "bool"),
            },
            _ => Err(no_overload(name, &[value])),
        },
        "string" => match text(&value) {
            Some(text) => Ok(Value::from(text)),
            None => Err(no_overload(name, &[value])),
        },
        "bytes" => match &value {
            Value::Bytes(_) => Ok(value),
            Value::String(text) => Ok(Value::Bytes(Arc::from(text.as_bytes()))),
            _ => Err(no_overload(name, &[value])),
        },
        "duration" | "timestamp" => time(name, value),
        _ => Err(no_overload(name, &[value])),
    }
}

fn refused<'a>(text: &str, to: &str) -> Evaluated<'a> {
    Err(EvaluationError::function(format!("type conversion error from {text:?} to '{to}'")))
}

fn size<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::String(text) => Ok(Value::Int(text.chars().count() as i64)),
        Value::Bytes(_) | Value::List(_) | Value::Map(_) => Ok(Value::Int(value.length() as i64)),
        other => Err(no_overload("size", std::slice::from_ref(other))),
    }
}

fn int<'a>(value: &Value<'a>) -> Evaluated<'a> {
    let overflow = EvaluationError::Overflow { kind: "integer" };
    match value {
        Value::Int(n) => Ok(Value::Int(*n)),
        Value::Uint(n) => i64::try_from(*n).map(Value::Int).map_err(|_| overflow),
        // The bounds themselves are not numbers that a double can tell from others.
        Value::Double(n) if n.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*n as i64)),
        Value::Double(_) => Err(overflow),
        Value::String(text) => text.parse().map(Value::Int).or_else(|_| refused(text, "int")),
        Value::Timestamp(at) => Ok(Value::Int(at.as_second())),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        other => Err(no_overload("int", std::slice::from_ref(other))),
    }
}

fn uint<'a>(value: &Value<'a>) -> Evaluated<'a> {
    let overflow = EvaluationError::Overflow { kind: "unsigned integer" };
    match value {
        Value::Uint(n) => Ok(Value::Uint(*n)),
        Value::Int(n) => u64::try_from(*n).map(Value::Uint).map_err(|_| overflow),
        Value::Double(n) if *n >= 0.0 && *n < 18_446_744_073_709_551_615.0 => Ok(Value::Uint(*n as u64)),
        Value::Double(_) => Err(overflow),
        Value::String(text) => text.parse().map(Value::Uint).or_else(|_| refused(text, "uint")),
        other => Err(no_overload("uint", std::slice::from_ref(other))),
    }
}

fn double<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::Double(n) => Ok(Value::Double(*n)),
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        Value::String(text) => text.parse().map(Value::Double).or_else(|_| refused(text, "double")),
        other => Err(no_overload("double", std::slice::from_ref(other))),
    }
}

/// A scalar as text.
pub(super) fn text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) if n.is_nan() => "NaN".to_owned(),
        Value::Double(n) if n.is_infinite() => if *n > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        Value::Double(n) if n.abs() >= 1e21 => format!("{n:e}"),
        Value::Double(n) => n.to_string(),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(nanos) => times::print_duration(*nanos),
        Value::Opaque(Opaque::Ip(address)) => address.to_string(),
        Value::Opaque(Opaque::Cidr(address, bits)) => format!("{address}/{bits}"),
        _ => return None,
    })
}

fn time<'a>(name: &str, value: Value<'a>) -> Evaluated<'a> {
    match (name, &value) {
        ("duration", Value::Duration(_)) | ("timestamp", Value::Timestamp(_)) => Ok(value),
        ("duration", Value::Int(nanos)) => Ok(Value::Duration(*nanos)),
        ("duration", Value::String(text)) => {
            times::parse_duration(text).map_or_else(|| refused(text, "duration"), |n| Ok(Value::Duration(n)))
        }
        ("timestamp", Value::Int(seconds)) => Timestamp::from_second(*seconds)
            .map(Value::Timestamp)
            .map_err(|_| EvaluationError::Overflow { kind: "timestamp" }),
        ("timestamp", Value::String(text)) => times::parse_timestamp(text)
            .map_or_else(|| refused(text, "timestamp"), |at| Ok(Value::Timestamp(at))),
        _ => Err(no_overload(name, &[value])),
    }
}
