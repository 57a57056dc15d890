//! Functions of strings. Positions are in characters.

use super::{no_overload, printing};
use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{Text, Value};

pub(super) fn call<'a>(name: &str, args: &[Value<'a>], meter: &mut Meter) -> Evaluated<'a> {
    let refused = || no_overload(name, args);
    match (name, args) {
        ("join", [Value::List(list), rest @ ..]) => {
            let separator = match rest {
                [] => "",
                [Value::String(separator)] => separator,
                _ => return Err(refused()),
            };
            meter.spend_for((list.len() as u64).saturating_mul(separator.len() as u64))?;
            let mut out = String::new();
            for (index, item) in list.iter().enumerate() {
                let Value::String(item) = item else { return Err(refused()) };
                meter.spend_for(item.len() as u64)?;
                if index > 0 {
                    out.push_str(separator);
                }
                out.push_str(&item);
            }
            Ok(Value::from(out))
        }
        ("strings.quote", [Value::String(text)]) => Ok(Value::from(printing::quoted(text))),
        ("format", [Value::String(pattern), Value::List(list)]) => printing::format(pattern, list, meter),
        (_, [Value::String(text), rest @ ..]) => of_text(name, text, rest, meter).ok_or_else(refused)?,
        _ => Err(refused()),
    }
}

fn of_text<'a>(name: &str, text: &Text<'a>, args: &[Value<'a>], meter: &mut Meter) -> Option<Evaluated<'a>> {
    Some(match (name, args) {
        ("contains", [Value::String(part)]) => Ok(Value::Bool(text.contains(&**part))),
        ("startsWith", [Value::String(part)]) => Ok(Value::Bool(text.starts_with(&**part))),
        ("endsWith", [Value::String(part)]) => Ok(Value::Bool(text.ends_with(&**part))),
        ("lowerAscii", []) => Ok(Value::from(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::from(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("charAt", [Value::Int(index)]) => char_at(text, *index),
        ("indexOf", [Value::String(part)]) => index_of(text, part, 0),
        ("indexOf", [Value::String(part), Value::Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Value::String(part)]) => last_index_of(text, part, i64::MAX),
        ("lastIndexOf", [Value::String(part), Value::Int(from)]) => last_index_of(text, part, *from),
        ("substring", [Value::Int(start)]) => substring(text, *start, count(text)),
        ("substring", [Value::Int(start), Value::Int(end)]) => substring(text, *start, *end),
        ("replace", [Value::String(old), Value::String(new)]) => replace(text, old, new, usize::MAX, meter),
        ("replace", [Value::String(old), Value::String(new), Value::Int(times)]) => {
            replace(text, old, new, usize::try_from(*times).unwrap_or(usize::MAX), meter)
        }
        ("split", [Value::String(separator)]) => Ok(split(text, separator, -1)),
        ("split", [Value::String(separator), Value::Int(count)]) => Ok(split(text, separator, *count)),
        _ => return None,
    })
}

fn count(text: &str) -> i64 {
    text.chars().count() as i64
}

fn out_of_range<'a>(index: i64) -> Evaluated<'a> {
    Err(EvaluationError::function(format!("index out of range: {index}")))
}

/// The byte offset of a character, one behind the last included.
fn offset(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

fn char_at<'a>(text: &str, index: i64) -> Evaluated<'a> {
    match offset(text, index) {
        Some(at) => Ok(Value::from(text[at..].chars().next().map(String::from).unwrap_or_default())),
        None => out_of_range(index),
    }
}

fn index_of<'a>(text: &str, part: &str, from: i64) -> Evaluated<'a> {
    let Some(start) = offset(text, from) else {
        return if part.is_empty() || from < 0 { out_of_range(from) } else { Ok(Value::Int(-1)) };
    };
    let found = text[start..].find(part);
    Ok(Value::Int(found.map_or(-1, |at| count(&text[..start + at]))))
}

fn last_index_of<'a>(text: &str, part: &str, from: i64) -> Evaluated<'a> {
    if from < 0 {
        return out_of_range(from);
    }
    // What begins at `from` or before it counts.
    let start = offset(text, from).unwrap_or(text.len());
    let end = text.len().min(text.ceil_char_boundary(start.saturating_add(part.len())));
    Ok(Value::Int(text[..end].rfind(part).map_or(-1, |at| count(&text[..at]))))
}

fn substring<'a>(text: &str, start: i64, end: i64) -> Evaluated<'a> {
    if start > end {
        let detail = format!("invalid substring range. start: {start}, end: {end}");
        return Err(EvaluationError::function(detail));
    }
    match (offset(text, start), offset(text, end)) {
        (Some(from), Some(to)) => Ok(Value::text(&text[from..to])),
        (None, _) => out_of_range(start),
        (_, None) => out_of_range(end),
    }
}

fn replace<'a>(text: &str, old: &str, new: &str, times_max: usize, meter: &mut Meter) -> Evaluated<'a> {
    let times = text.matches(old).count().min(times_max) as u64;
    meter.spend_for(times.saturating_mul(new.len() as u64))?;
    Ok(Value::from(text.replacen(old, new, times_max)))
}

fn split<'a>(text: &str, separator: &str, count: i64) -> Value<'a> {
    let mut parts: Vec<&str> = match (usize::try_from(count), separator) {
        (Ok(0), _) => Vec::new(),
        // Between characters, and nowhere else.
        (Ok(n), "") if n < text.chars().count() => {
            let at = offset(text, n as i64 - 1).unwrap_or(text.len());
            text[..at].split("").filter(|part| !part.is_empty()).chain([&text[at..]]).collect()
        }
        (_, "") => text.split("").filter(|part| !part.is_empty()).collect(),
        (Ok(n), separator) => text.splitn(n, separator).collect(),
        (Err(_), separator) => text.split(separator).collect(),
    };
    Value::list(parts.drain(..).map(Value::text).collect())
}
