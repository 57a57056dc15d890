//! Resource quantities: `0.5` is written `500m`, `1024Mi` is `1Gi`. Equal amounts in one format have one text.
//!
//! Rules: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>. Precision ends at
//! a nano, rounded away from zero.

use std::fmt;

/// How an amount was, and will be, written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

/// An amount that can be compared and added up. Beyond what 128 bits of nanos hold, sums stay at the largest.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const NANOS: i128 = 1_000_000_000;

/// The canonical text; `None` if the text is not a quantity.
pub(crate) fn canonical(text: &str) -> Option<String> {
    match read(text)? {
        Read::Amount(quantity) => Some(quantity.to_string()),
        // Beyond what upstream can count; the text is kept.
        Read::Beyond => Some(text.to_owned()),
    }
}

/// What a text is that is a quantity.
enum Read {
    Amount(Quantity),
    Beyond,
}

fn read(text: &str) -> Option<Read> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (format, scale) = scale_of(suffix)?;
    Some(match nanos(whole, fraction, scale) {
        Some(nanos) => Read::Amount(Quantity { nanos: if negative { -nanos } else { nanos }, format }),
        None => Read::Beyond,
    })
}

// === impl Quantity ===

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// Reads one; `None` if the text is none, or more than can be counted.
    pub fn parse(text: &str) -> Option<Self> {
        match read(text.trim())? {
            Read::Amount(quantity) => Some(quantity),
            Read::Beyond => None,
        }
    }

    /// So many.
    pub const fn count(number: u32) -> Self {
        Self { nanos: number as i128 * NANOS, format: Format::Decimal }
    }

    /// In billionths of the unit.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// The sum, written as this one is, or as the other where this one is zero.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference, written as this one is.
    pub fn minus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos), ..self }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.nanos.saturating_abs();
        let printed = match self.format {
            Format::Binary if nanos >= 1024 * NANOS => binary(nanos),
            Format::Exponent => decimal(nanos, true),
            _ => decimal(nanos, false),
        };
        f.write_str(if self.nanos < 0 { "-" } else { "" })?;
        f.write_str(&printed)
    }
}

/// A factor: a power of ten or of 1024.
enum Scale {
    Ten(i32),
    Kibi(u32),
}

fn scale_of(suffix: &str) -> Option<(Format, Scale)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, Scale::Ten(*power)));
    }
    if let Some(power) = BINARY.iter().position(|name| *name == suffix) {
        return Some((Format::Binary, Scale::Kibi(power as u32)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (exponent.abs() <= 30).then_some((Format::Exponent, Scale::Ten(exponent)))
}

/// The amount in nanos, rounded up; `None` if it does not fit.
fn nanos(whole: &str, fraction: &str, scale: Scale) -> Option<i128> {
    if whole.len() + fraction.len() > 30 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = fraction.len() as i32;
    let (digits, power) = match scale {
        Scale::Ten(power) => (digits, power + 9 - places),
        Scale::Kibi(power) => (digits.checked_mul(1024i128.checked_pow(power)?)?, 9 - places),
    };
    let factor = 10i128.checked_pow(power.unsigned_abs())?;
    if power >= 0 { digits.checked_mul(factor) } else { Some((digits + factor - 1) / factor) }
}

fn decimal(nanos: i128, exponent: bool) -> String {
    if nanos == 0 {
        return "0".into();
    }
    let (mut mantissa, mut power) = (nanos, -9);
    while mantissa % 1000 == 0 && power < 18 {
        mantissa /= 1000;
        power += 3;
    }
    if exponent {
        return if power == 0 { mantissa.to_string() } else { format!("{mantissa}e{power}") };
    }
    let suffix = DECIMAL.iter().find(|(_, p)| *p == power).map_or("", |(name, _)| name);
    format!("{mantissa}{suffix}")
}

fn binary(nanos: i128) -> String {
    let (mut mantissa, mut power) = ((nanos + NANOS - 1) / NANOS, 0);
    while mantissa % 1024 == 0 && power + 1 < BINARY.len() {
        mantissa /= 1024;
        power += 1;
    }
    format!("{mantissa}{}", BINARY[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_have_one_text() {
        for (given, wanted) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("12000", "12k"),
            ("100Ki", "100Ki"),
            ("0.5Mi", "512Ki"),
            ("1e3", "1e3"),
            ("0Gi", "0"),
            ("-1000", "-1k"),
            (".001", "1m"),
            ("0.0000000001", "1n"),
            ("1Ki", "1Ki"),
            ("999Mi", "999Mi"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(wanted), "{given}");
        }
    }

    #[test]
    fn amounts_are_added_and_compared_whatever_their_text() {
        let of = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(of("1024Mi"), of("1Gi"));
        assert!(of("999m") < of("1") && of("-1") < of("0") && of("1n") > Quantity::ZERO);
        for (one, other, sum) in [
            ("200m", "0.3", "500m"),
            ("1Gi", "512Mi", "1536Mi"),
            ("0", "1Gi", "1Gi"),
            ("1e3", "1", "1001"),
            ("2", "1536Mi", "1610612738"),
        ] {
            assert_eq!(of(one).plus(of(other)).to_string(), sum, "{one} and {other}");
        }
        assert_eq!(Quantity::count(12_000).to_string(), "12k");
        assert_eq!(Quantity::parse("9999999999999999999999999999999999"), None);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for wrong in ["", "abc", "1.2.3", "1Q", "Gi", "1 Gi", "e3", "."] {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn canonical_text_is_a_fixed_point() {
        for given in ["17", "250m", "3Gi", "12e6", "1n", "7E", "15Ei"] {
            let once = canonical(given).unwrap();
            assert_eq!(canonical(&once).as_ref(), Some(&once));
        }
    }
}
