//! Timestamps and durations.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use penstock_schema::duration;

use super::no_overload;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::Value;

/// Nanoseconds of `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    duration::parse(text)
}

/// Seconds, as the language prints durations: `5400s`.
pub(crate) fn print_duration(nanos: i64) -> String {
    let (seconds, rest) = (nanos / 1_000_000_000, (nanos % 1_000_000_000).unsigned_abs());
    if rest == 0 {
        return format!("{seconds}s");
    }
    let sign = if nanos < 0 && seconds == 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // Years have four digits here; the parser would take others too.
    let plain = text.len() >= 20 && text.as_bytes()[4] == b'-';
    if plain { text.parse().ok() } else { None }
}

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(match name {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            "getMilliseconds" => nanos % 1_000_000_000 / 1_000_000,
            _ => return Err(no_overload(name, args)),
        })),
        [Value::Timestamp(at)] => of_timestamp(name, *at, TimeZone::UTC),
        [Value::Timestamp(at), Value::String(zone)] => of_timestamp(name, *at, zone_of(zone)?),
        _ => Err(no_overload(name, args)),
    }
}

/// A name of the time zone database, or an offset such as `-08:00`.
fn zone_of(text: &str) -> Result<TimeZone, EvaluationError> {
    let unknown = || EvaluationError::function(format!("unknown time zone {text}"));
    if let Some((hours, minutes)) = text.split_once(':') {
        let (hour, minute): (i32, i32) =
            (hours.parse().map_err(|_| unknown())?, minutes.parse().map_err(|_| unknown())?);
        if hour.abs() > 23 || !(0..60).contains(&minute) {
            return Err(unknown());
        }
        let sign = if hours.starts_with('-') { -1 } else { 1 };
        let offset = Offset::from_seconds(hour * 3_600 + sign * minute * 60).map_err(|_| unknown())?;
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(text).map_err(|_| unknown())
}

fn of_timestamp<'a>(name: &str, at: Timestamp, zone: TimeZone) -> Evaluated<'a> {
    let local = at.to_zoned(zone);
    Ok(Value::Int(match name {
        "getFullYear" => i64::from(local.year()),
        "getMonth" => i64::from(local.month()) - 1,
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        "getMilliseconds" => i64::from(local.millisecond()),
        _ => return Err(no_overload(name, &[Value::Timestamp(at)])),
    }))
}
