//! What cells are made of: ages, counts, joined lists.

use jiff::Timestamp;
use serde_json::Value;

use crate::registry::object::items_at;

pub(crate) const NONE: &str = "<none>";
pub(crate) const UNKNOWN: &str = "<unknown>";

pub(crate) fn name(o: &Value) -> Value {
    o.pointer("/metadata/name").cloned().unwrap_or_default()
}

/// Text at a pointer, or `otherwise` when there is none.
pub(crate) fn text(o: &Value, pointer: &str, otherwise: &str) -> Value {
    match o.pointer(pointer).and_then(Value::as_str) {
        Some(t) if !t.is_empty() => t.into(),
        _ => otherwise.into(),
    }
}

pub(crate) fn number(o: &Value, pointer: &str) -> i64 {
    o.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub(crate) fn age(o: &Value, now: Timestamp) -> Value {
    since(o.pointer("/metadata/creationTimestamp"), now)
}

/// How long ago a time was, for people.
pub(crate) fn since(at: Option<&Value>, now: Timestamp) -> Value {
    match at.and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(at) => duration((now - at).get_seconds()).into(),
        None => UNKNOWN.into(),
    }
}

/// Seconds as `45s`, `3m20s`, `47h`, `2d5h`, `341d`, `3y10d`: two units while they are small.
pub(crate) fn duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return two(minutes, "m", seconds % 60, "s");
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    if hours < 8 {
        return two(hours, "h", minutes % 60, "m");
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    let days = hours / 24;
    if hours < 192 {
        return two(days, "d", hours % 24, "h");
    }
    if days < 365 * 2 {
        return format!("{days}d");
    }
    let years = days / 365;
    if days < 365 * 8 {
        return two(years, "y", days % 365, "d");
    }
    format!("{years}y")
}

/// A label map as `a=b,c=d`.
pub(crate) fn labels(map: Option<&Value>) -> String {
    let joined = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(",");
    if joined.is_empty() { NONE.into() } else { joined }
}

/// A metav1 LabelSelector as clients show it.
pub(crate) fn selector(s: Option<&Value>) -> String {
    let Some(s) = s else { return NONE.into() };
    let mut terms: Vec<String> = s
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for e in items_at(s, "/matchExpressions") {
        let key = e["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = items_at(e, "/values").iter().filter_map(Value::as_str).collect();
        terms.push(match e["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_string(),
        });
    }
    if terms.is_empty() { NONE.into() } else { terms.join(",") }
}

/// Names and images of a pod template's containers, comma-joined.
pub(crate) fn containers(spec: Option<&Value>) -> (String, String) {
    let list = spec.map(|s| items_at(s, "/containers")).unwrap_or_default();
    let join = |field: &str| {
        list.iter().map(|c| c[field].as_str().unwrap_or_default()).collect::<Vec<_>>().join(",")
    };
    (join("name"), join("image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_upstream() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (100_000, "27h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
