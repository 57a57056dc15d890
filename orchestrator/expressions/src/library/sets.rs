//! Lists as sets.

use super::no_overload;
use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{List, Value, equal};

/// Whether a list holds an item.
pub(crate) fn holds<'a>(
    list: &List<'a>,
    item: &Value<'a>,
    meter: &mut Meter,
) -> Result<bool, EvaluationError> {
    for other in list.iter() {
        meter.spend(1)?;
        if equal(&other, item, meter)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn call<'a>(name: &str, args: &[Value<'a>], meter: &mut Meter) -> Evaluated<'a> {
    let [Value::List(a), Value::List(b)] = args else {
        return Err(no_overload(&format!("sets.{name}"), args));
    };
    let mut all = |of: &List<'a>, inside: &List<'a>| -> Result<bool, EvaluationError> {
        for item in of.iter() {
            if !holds(inside, &item, meter)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok(Value::Bool(match name {
        "contains" => all(b, a)?,
        "equivalent" => all(a, b)? && all(b, a)?,
        _ => {
            for item in a.iter() {
                if holds(b, &item, meter)? {
                    return Ok(Value::Bool(true));
                }
            }
            false
        }
    }))
}
