//! Whether a text is a schedule in cron's notation, and why not. Following it is the controller's.

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: &[&str] =
    &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

struct Field {
    first: u32,
    last: u32,
    /// Names of the values from `first`.
    names: &'static [&'static str],
}

/// Minute, hour, day of the month, month, day of the week.
const FIELDS: [Field; 5] = [
    Field { first: 0, last: 59, names: &[] },
    Field { first: 0, last: 23, names: &[] },
    Field { first: 1, last: 31, names: &[] },
    Field { first: 1, last: 12, names: MONTHS },
    Field { first: 0, last: 6, names: DAYS },
];

/// Why the text is no schedule; `None` when it is one.
pub(super) fn check(text: &str) -> Option<String> {
    parse(text).err()
}

fn parse(text: &str) -> Result<(), String> {
    let mut rest = text;
    if rest.starts_with("TZ=") || rest.starts_with("CRON_TZ=") {
        let (zone, schedule) = rest.split_once(' ').ok_or("provided bad location")?;
        let name = zone.split_once('=').map_or("", |(_, name)| name);
        jiff::tz::TimeZone::get(name)
            .map_err(|_| format!("provided bad location {name}: unknown time zone {name}"))?;
        rest = schedule.trim();
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let parts: Vec<&str> = rest.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        let listed = parts.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{listed}]", parts.len()));
    }
    parts.iter().zip(&FIELDS).try_for_each(|(part, field)| part.split(',').try_for_each(|it| field.read(it)))
}

fn descriptor(text: &str) -> Result<(), String> {
    if DESCRIPTORS.contains(&text) {
        return Ok(());
    }
    match text.strip_prefix("@every ") {
        Some(duration) if is_duration(duration) => Ok(()),
        Some(duration) => {
            Err(format!("failed to parse duration {text}: time: invalid duration {duration:?}"))
        }
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

/// `1h30m`: numbers with units, one after another, with a sign or none; or `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut found = false;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, tail) = rest.split_at(number);
        let Some(unit) =
            ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find(|unit| tail.starts_with(**unit))
        else {
            return false;
        };
        if digits.parse::<f64>().is_err() {
            return false;
        }
        (rest, found) = (&tail[unit.len()..], true);
    }
    found
}

impl Field {
    /// One item of a list: a value, a range or all, with a step or none.
    fn read(&self, text: &str) -> Result<(), String> {
        let mut parts = text.split('/');
        let range = parts.next().unwrap_or_default();
        let step = parts.next();
        if parts.next().is_some() {
            return Err(format!("too many slashes: {text}"));
        }
        let ends: Vec<&str> = range.split('-').collect();
        let (start, end) = match ends[..] {
            ["*" | "?"] => (self.first, self.last),
            [only] => {
                let value = self.value(only)?;
                (value, if step.is_some() { self.last } else { value })
            }
            ["*" | "?", _] => (self.first, self.last),
            [first, last] => (self.value(first)?, self.value(last)?),
            _ => return Err(format!("too many hyphens: {text}")),
        };
        if start < self.first {
            return Err(format!("beginning of range ({start}) below minimum ({}): {text}", self.first));
        }
        if end > self.last {
            return Err(format!("end of range ({end}) above maximum ({}): {text}", self.last));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        match step.map(number).transpose()? {
            Some(0) => Err(format!("step of range should be a positive number: {text}")),
            _ => Ok(()),
        }
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        match self.names.iter().position(|name| *name == lower) {
            Some(at) => Ok(self.first + u32::try_from(at).unwrap_or_default()),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_of_every_form_are_taken() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan-MAR mon",
            "? ? ? ? ?",
            "5/10 * * * *",
            "@hourly",
            "@every 1h30m",
            "TZ=Europe/Berlin 0 0 * * *",
            "0 0 31 2 0",
        ] {
            assert_eq!(check(good), None, "{good}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told_why() {
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(check(bad).as_deref(), Some(why), "{bad}");
        }
    }
}
