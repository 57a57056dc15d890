//! Kubernetes quantities as integers. Pure. Rounds up, as everything that reserves or limits must.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// The value in thousandths (CPU), rounded up; `None` when it is no quantity.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    i64::try_from(div_ceil(nano(&quantity.0)?, NANO / 1000)).ok()
}

/// The value in whole units (bytes, counts), rounded up.
pub fn whole(quantity: &Quantity) -> Option<i64> {
    i64::try_from(div_ceil(nano(&quantity.0)?, NANO)).ok()
}

/// `value / divisor`, rounded up; a divisor of zero counts as one.
pub fn divide(value: &Quantity, divisor: Option<&Quantity>) -> Option<i64> {
    let value = nano(&value.0)?;
    let divisor = divisor.and_then(|d| nano(&d.0)).filter(|d| *d > 0).unwrap_or(NANO);
    i64::try_from(div_ceil(value, divisor)).ok()
}

fn div_ceil(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) > 0)
}

fn nano(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '+' | '-' | '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 || fraction.len() > 12 {
        return None;
    }
    let digits = format!("{whole}{fraction}").parse::<i128>().ok()?;
    let (factor, exponent) = scale(suffix)?;
    // digits × factor × 10^exponent, in nanos, without losing what is left of the point.
    let exponent = exponent + 9 - i32::try_from(fraction.len()).ok()?;
    let scaled = digits.checked_mul(factor)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let value = if exponent >= 0 { scaled.checked_mul(power)? } else { div_ceil(scaled, power) };
    Some(if negative { -value } else { value })
}

/// A suffix as a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            (1, (-27..=18).contains(&exponent).then_some(exponent)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity(text.to_string())
    }

    #[test]
    fn quantities_of_every_suffix_are_read() {
        let cases =
            [("1", 1000), ("250m", 250), ("0.1", 100), ("1.5", 1500), ("2k", 2_000_000), ("1e3", 1_000_000)];
        for (text, want) in cases {
            assert_eq!(milli(&q(text)), Some(want), "{text}");
        }
        assert_eq!(whole(&q("128Mi")), Some(128 << 20));
        assert_eq!(whole(&q("1.5Gi")), Some(3 << 29));
    }

    #[test]
    fn fractions_round_up() {
        assert_eq!(whole(&q("100m")), Some(1));
        assert_eq!(milli(&q("1u")), Some(1));
        assert_eq!(divide(&q("250m"), Some(&q("1"))), Some(1));
        assert_eq!(divide(&q("250m"), Some(&q("1m"))), Some(250));
        assert_eq!(divide(&q("64Mi"), Some(&q("1Mi"))), Some(64));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in ["", "abc", "1x", "1e99", "-", "99999999999999999999999"] {
            assert_eq!(milli(&q(bad)), None, "{bad}");
        }
    }
}
