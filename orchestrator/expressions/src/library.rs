//! What functions do. One file a library; `signatures` says what they take.

pub(crate) mod authorizer;
mod conversions;
pub(crate) mod formats;
mod lists;
mod networks;
mod printing;
mod quantities;
pub(crate) mod regexes;
pub(crate) mod sets;
mod strings;
pub(crate) mod times;
mod urls;
mod versions;

use std::collections::HashMap;

use regex::Regex;

use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{Opaque, Value};

pub(crate) fn no_overload(name: &str, args: &[Value<'_>]) -> EvaluationError {
    let types: Vec<&str> = args.iter().map(Value::type_name).collect();
    EvaluationError::NoSuchOverload { call: format!("{name}({})", types.join(", ")) }
}

/// The result of a function; what stands before the dot is the first argument.
pub(crate) fn call<'a>(
    name: &str,
    args: Vec<Value<'a>>,
    patterns: &HashMap<String, Regex>,
    meter: &mut Meter,
) -> Evaluated<'a> {
    // Functions go through what they are given.
    for arg in &args {
        meter.spend_for(arg.length())?;
    }
    match name {
        "matches" | "find" | "findAll" => return regexes::call(name, &args, patterns, meter),
        "jsonpatch.escapeKey" => {
            return match &args[..] {
                [Value::String(text)] => Ok(Value::from(text.replace('~', "~0").replace('/', "~1"))),
                _ => Err(no_overload(name, &args)),
            };
        }
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("sets.") {
        return sets::call(rest, &args, meter);
    }
    if let Some(rest) = name.strip_prefix("format.") {
        return formats::named(rest, &args);
    }
    if let Some(rest) = name.strip_prefix("optional.") {
        return optional(rest, args);
    }
    match (name, args.first()) {
        ("hasValue" | "value", Some(Value::Optional(inner))) => match (name, inner) {
            ("hasValue", inner) => Ok(Value::Bool(inner.is_some())),
            (_, Some(inner)) => Ok((**inner).clone()),
            (_, None) => Err(EvaluationError::NoneDereferenced),
        },
        (_, Some(Value::Opaque(Opaque::Access(access)))) => authorizer::call(name, access, &args),
        (_, Some(Value::Opaque(Opaque::Format(format)))) => formats::call(name, *format, &args),
        (_, Some(Value::Opaque(Opaque::Quantity(_)))) => quantities::call(name, &args),
        (_, Some(Value::Opaque(Opaque::Semver(_)))) => versions::call(name, &args),
        (_, Some(Value::Opaque(Opaque::Url(url)))) => urls::call(name, url, &args),
        (_, Some(Value::Opaque(Opaque::Ip(_) | Opaque::Cidr(..)))) => networks::call(name, &args),
        ("quantity" | "isQuantity", _) => quantities::call(name, &args),
        ("semver" | "isSemver", _) => versions::call(name, &args),
        ("url" | "isURL", _) => urls::parse(name, &args),
        ("ip" | "isIP" | "ip.isCanonical" | "cidr" | "isCIDR", _) => networks::call(name, &args),
        (_, Some(Value::Timestamp(_) | Value::Duration(_))) if name.starts_with("get") => {
            times::call(name, &args)
        }
        ("lists.range", _) => lists::call(name, &args, meter),
        (_, Some(Value::List(_))) if !matches!(name, "size" | "dyn" | "type" | "join") => {
            lists::call(name, &args, meter)
        }
        ("join" | "strings.quote", _) => strings::call(name, &args, meter),
        (_, Some(Value::String(_))) if !conversions::NAMES.contains(&name) => {
            strings::call(name, &args, meter)
        }
        _ => conversions::call(name, args),
    }
}

fn optional<'a>(name: &str, mut args: Vec<Value<'a>>) -> Evaluated<'a> {
    match (name, args.pop()) {
        ("none", None) => Ok(Value::Optional(None)),
        ("of", Some(value)) => Ok(Value::some(value)),
        ("ofNonZeroValue", Some(value)) if value.is_zero() => Ok(Value::Optional(None)),
        ("ofNonZeroValue", Some(value)) => Ok(Value::some(value)),
        (_, given) => Err(no_overload(&format!("optional.{name}"), given.as_slice())),
    }
}
