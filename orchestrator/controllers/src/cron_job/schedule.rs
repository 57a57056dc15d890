//! Schedules in cron's notation, read and followed in a time zone. Pure.
//!
//! Five fields (minute, hour, day of month, month, day of week) of `*`, lists, ranges, steps and English names, or
//! `@hourly` and its like. When both day fields are restricted, either matches, as crontab(5) has it. A time that
//! the clock skips in spring is left out; one that comes twice in autumn counts once.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A schedule that has no time within so many days has none.
const DAYS_AHEAD_MAX: usize = 5 * 366;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Why a schedule cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScheduleError {
    #[error("a schedule has 5 fields, {text:?} has {found}")]
    Fields { text: String, found: usize },
    #[error("{part:?} is no {field}")]
    Part { part: String, field: &'static str },
    #[error("{name:?} is no time zone known here")]
    Zone { name: String },
}

/// A parsed schedule: a bit for every value of a field.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
    zone: TimeZone,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names of the values from `first`.
    names: &'static [&'static str],
}

impl Field {
    fn value(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|n| *n == lower);
        let value = match named {
            Some(at) => self.first + u32::try_from(at).ok()?,
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.first..=self.last).contains(&value).then_some(value)
    }

    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|s| *s > 0)?)),
            None => (text, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None if range == "*" || range == "?" => (self.first, self.last),
            // `5/10` goes on to the end, `5` does not.
            None if step.is_some() => (self.value(range)?, self.last),
            None => (self.value(range)?, self.value(range)?),
        };
        let values = (first..=last).step_by(usize::try_from(step.unwrap_or(1)).ok()?);
        (first <= last).then(|| values.fold(0, |bits, v| bits | 1 << v))
    }

    fn read(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').try_fold(0, |bits, part| {
            let more = self
                .part(part)
                .ok_or_else(|| ScheduleError::Part { part: part.to_owned(), field: self.name })?;
            Ok(bits | more)
        })
    }
}

impl Schedule {
    /// Reads a schedule; without a zone it is followed in UTC.
    pub(crate) fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone { name: name.to_owned() })?,
        };
        let spelled = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = spelled.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(ScheduleError::Fields { text: text.to_owned(), found: fields.len() });
        };
        let field = |name, first, last, names| Field { name, first, last, names };
        let any = |text: &str| text.starts_with(['*', '?']);
        Ok(Self {
            minutes: field("minute", 0, 59, &[]).read(minutes)?,
            hours: field("hour", 0, 23, &[]).read(hours)?,
            days: field("day of the month", 1, 31, &[]).read(days)?,
            months: field("month", 1, 12, &MONTHS).read(months)?,
            weekdays: field("day of the week", 0, 6, &DAYS).read(weekdays)?,
            any_day: any(days),
            any_weekday: any(weekdays),
            zone,
        })
    }

    fn has_day(&self, date: Date) -> bool {
        let bit = |bits: u64, value: i8| bits >> value & 1 == 1;
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let either = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        bit(self.months, date.month()) && either
    }

    /// The first time after `after`; `None` when there is none for years.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let local = after.to_zoned(self.zone.clone()).datetime();
        let mut date = local.date();
        for _ in 0..DAYS_AHEAD_MAX {
            if self.has_day(date) {
                let found = self.times(date).find(|at| *at > after);
                if found.is_some() {
                    return found;
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    /// All times of a day that has any, in order.
    fn times(&self, date: Date) -> impl Iterator<Item = Timestamp> + '_ {
        let hours = (0..24_i8).filter(|h| self.hours >> h & 1 == 1);
        let clock =
            hours.flat_map(|h| (0..60_i8).filter(|m| self.minutes >> m & 1 == 1).map(move |m| (h, m)));
        clock.filter_map(move |(hour, minute)| {
            let wanted: DateTime = date.at(hour, minute, 0, 0);
            let zoned = self.zone.to_zoned(wanted).ok()?;
            (zoned.datetime() == wanted).then(|| zoned.timestamp())
        })
    }

    /// The last time after `after` and not after `now`.
    pub(crate) fn latest(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let mut latest = None;
        let mut at = after;
        while let Some(next) = self.next(at).filter(|n| *n <= now) {
            latest = Some(next);
            at = next;
        }
        latest
    }

    pub(crate) fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, zone: Option<&str>, after: &str, next: &str) {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let found = schedule.next(after.parse().unwrap());
        assert_eq!(found.map(|t| t.to_string()).as_deref(), Some(next));
    }

    #[test]
    fn the_next_time_follows_from_the_fields() {
        check("*/15 * * * *", None, "2026-01-02T03:04:05Z", "2026-01-02T03:15:00Z");
        check("0 0 29 2 *", None, "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("30 8-10/2 * jan,mar MON", None, "2026-01-06T00:00:00Z", "2026-01-12T08:30:00Z");
        check("0 0 13 * 5", None, "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z");
        check("@hourly", None, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert!(Schedule::parse("0 0 31 2 *", None).unwrap().next(Timestamp::UNIX_EPOCH).is_none());
    }

    #[test]
    fn clocks_that_change_skip_and_repeat_nothing() {
        let berlin = Some("Europe/Berlin");
        check("30 12 * * *", berlin, "2026-07-01T00:00:00Z", "2026-07-01T10:30:00Z");
        // 02:30 does not exist on 29 March 2026.
        check("30 2 * * *", berlin, "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z");
        // 02:30 comes twice on 25 October 2026: at 00:30 and 01:30 UTC.
        check("30 2 * * *", berlin, "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_part_that_is_wrong() {
        for wrong in [
            "* * * *",
            "60 * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "+5 * * * *",
            "* * * * 7",
            "",
            "é * * * *",
        ] {
            assert!(Schedule::parse(wrong, None).is_err(), "{wrong}");
        }
        let error = Schedule::parse("* 24 * * *", None).unwrap_err().to_string();
        assert_eq!(error, "\"24\" is no hour");
        assert!(Schedule::parse("* * * * *", Some("Mars/Base")).is_err());
    }

    #[test]
    fn the_latest_of_many_missed_times_is_found() {
        let schedule = Schedule::parse("*/5 * * * *", None).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let latest = schedule.latest(at("2026-01-01T00:00:00Z"), at("2026-01-03T00:07:00Z"));
        assert_eq!(latest, Some(at("2026-01-03T00:05:00Z")));
        assert_eq!(schedule.latest(at("2026-01-01T00:05:00Z"), at("2026-01-01T00:09:59Z")), None);
    }
}
