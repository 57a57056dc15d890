//! Resource quantities.

use penstock_schema::Quantity;

use super::no_overload;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{Opaque, Value};

const NANOS: i128 = 1_000_000_000;

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    match (name, args) {
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool(Quantity::parse(text).is_some())),
        ("quantity", [Value::String(text)]) => Quantity::parse(text).map(value).ok_or_else(|| {
            EvaluationError::function(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            )
        }),
        (_, [Value::Opaque(Opaque::Quantity(quantity)), rest @ ..]) => {
            of_quantity(name, *quantity, rest).ok_or_else(|| no_overload(name, args))?
        }
        _ => Err(no_overload(name, args)),
    }
}

fn value<'a>(quantity: Quantity) -> Value<'a> {
    Value::Opaque(Opaque::Quantity(quantity))
}

fn of_quantity<'a>(name: &str, quantity: Quantity, args: &[Value<'a>]) -> Option<Evaluated<'a>> {
    let nanos = quantity.nanos();
    let whole = (nanos % NANOS == 0).then(|| i64::try_from(nanos / NANOS).ok()).flatten();
    let other = match args {
        [] => None,
        [Value::Opaque(Opaque::Quantity(other))] => Some(*other),
        [Value::Int(count)] if matches!(name, "add" | "sub") => Quantity::parse(&count.to_string()),
        _ => return None,
    };
    Some(Ok(match (name, other) {
        ("sign", None) => Value::Int(nanos.signum() as i64),
        ("isInteger", None) => Value::Bool(whole.is_some()),
        ("asInteger", None) => match whole {
            Some(whole) => Value::Int(whole),
            None => return Some(Err(EvaluationError::function("cannot convert value to integer"))),
        },
        ("asApproximateFloat", None) => Value::Double(nanos as f64 / NANOS as f64),
        ("add", Some(other)) => value(quantity.plus(other)),
        ("sub", Some(other)) => value(quantity.minus(other)),
        ("isGreaterThan", Some(other)) => Value::Bool(quantity > other),
        ("isLessThan", Some(other)) => Value::Bool(quantity < other),
        ("compareTo", Some(other)) => Value::Int(quantity.cmp(&other) as i64),
        _ => return None,
    }))
}
