//! Functions of lists.

use std::cmp::Ordering;

use super::no_overload;
use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::evaluate::operators;
use crate::value::{List, Value, equal, order};

pub(super) fn call<'a>(name: &str, args: &[Value<'a>], meter: &mut Meter) -> Evaluated<'a> {
    let refused = || no_overload(name, args);
    if let ("lists.range", [Value::Int(count)]) = (name, args) {
        let count = (*count).max(0);
        meter.spend(count as u64)?;
        return Ok(Value::list((0..count).map(Value::Int).collect()));
    }
    let (Some(Value::List(list)), rest) = (args.first(), args.get(1..).unwrap_or_default()) else {
        return Err(refused());
    };
    meter.spend(list.len() as u64)?;
    let comparison = |a: &Value<'a>, b: &Value<'a>| order(a, b).ok_or_else(refused);
    match (name, rest) {
        ("isSorted", []) => {
            let items: Vec<_> = list.iter().collect();
            for pair in items.windows(2) {
                if comparison(&pair[0], &pair[1])? == Ordering::Greater {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        }
        ("min" | "max", []) => {
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut items = list.iter();
            let Some(mut best) = items.next() else {
                return Err(EvaluationError::function(format!("{name} called on empty list")));
            };
            for item in items {
                if comparison(&item, &best)? == wanted {
                    best = item;
                }
            }
            Ok(best)
        }
        ("sum", []) => {
            let mut items = list.iter();
            let Some(mut total) = items.next() else { return Ok(Value::Int(0)) };
            for item in items {
                total = operators::add(&total, &item, meter)?;
            }
            Ok(total)
        }
        ("indexOf" | "lastIndexOf", [wanted]) => {
            let mut found = -1;
            for (index, item) in list.iter().enumerate() {
                if equal(&item, wanted, meter)? {
                    found = index as i64;
                    if name == "indexOf" {
                        break;
                    }
                }
            }
            Ok(Value::Int(found))
        }
        ("slice", [Value::Int(start), Value::Int(end)]) => slice(list, *start, *end),
        ("flatten", []) => flatten(list, 1, meter),
        ("flatten", [Value::Int(depth)]) if *depth >= 0 => flatten(list, (*depth).min(64), meter),
        ("flatten", [Value::Int(_)]) => Err(EvaluationError::function("level must be non-negative")),
        ("reverse", []) => {
            let mut items: Vec<_> = list.iter().collect();
            items.reverse();
            Ok(Value::list(items))
        }
        ("sort", []) => sort(list, meter).ok_or_else(refused)?,
        ("distinct", []) => {
            let mut kept: Vec<Value<'a>> = Vec::new();
            'items: for item in list.iter() {
                for other in &kept {
                    meter.spend(1)?;
                    if equal(other, &item, meter)? {
                        continue 'items;
                    }
                }
                kept.push(item);
            }
            Ok(Value::list(kept))
        }
        ("first", []) => Ok(list.get(0).map_or(Value::Optional(None), Value::some)),
        ("last", []) => {
            let last = list.len().checked_sub(1).and_then(|index| list.get(index));
            Ok(last.map_or(Value::Optional(None), Value::some))
        }
        _ => Err(refused()),
    }
}

fn slice<'a>(list: &List<'a>, start: i64, end: i64) -> Evaluated<'a> {
    let length = list.len() as i64;
    if start < 0 || end > length || start > end {
        let detail = format!("cannot slice({start}, {end}), list is length {length}");
        return Err(EvaluationError::function(detail));
    }
    Ok(Value::list((start..end).filter_map(|index| list.get(index as usize)).collect()))
}

/// Items of lists in lists, to a depth that is bounded by the caller.
fn flatten<'a>(list: &List<'a>, depth: i64, meter: &mut Meter) -> Evaluated<'a> {
    let mut items: Vec<Value<'a>> = list.iter().collect();
    for _ in 0..depth {
        if !items.iter().any(|item| matches!(item, Value::List(_))) {
            break;
        }
        let mut next = Vec::new();
        for item in items {
            match item {
                Value::List(inner) => {
                    meter.spend(1 + inner.len() as u64)?;
                    next.extend(inner.iter());
                }
                other => next.push(other),
            }
        }
        items = next;
    }
    Ok(Value::list(items))
}

/// `None` where items have no order.
fn sort<'a>(list: &List<'a>, meter: &mut Meter) -> Option<Evaluated<'a>> {
    let mut items: Vec<Value<'a>> = list.iter().collect();
    let turns = items.len() as u64;
    if let Err(error) = meter.spend(turns.saturating_mul(u64::from(turns.max(1).ilog2()))) {
        return Some(Err(error));
    }
    let first = items.first().cloned().unwrap_or(Value::Null);
    if items.len() > 1 && items.iter().any(|item| order(&first, item).is_none()) {
        return None;
    }
    items.sort_by(|a, b| order(a, b).unwrap_or(Ordering::Equal));
    Some(Ok(Value::list(items)))
}
