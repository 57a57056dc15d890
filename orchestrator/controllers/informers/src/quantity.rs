//! Quantities as integers: CPU in milli-units, everything else in whole units, both rounded up as the scheduler
//! and quota count them. Hostile strings give `None`, never a panic or an overflow.

/// Parses a quantity into thousandths of its unit, rounded up and capped at `i128` range that any sum fits in.
pub fn parse_milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits_end = text
        .char_indices()
        .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && (*c == '+' || *c == '-'))))
        .map_or(text.len(), |(i, _)| i);
    let (number, suffix) = text.split_at(digits_end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.len() > 20 {
        return None;
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    // value = mantissa / 10^fraction.len() * scale; everything in thousandths.
    let (numerator, denominator) = scale(suffix)?;
    let numerator = mantissa.checked_mul(numerator)?.checked_mul(1000)?;
    let denominator = denominator.checked_mul(10i128.checked_pow(fraction.len() as u32)?)?;
    let rounded_up = numerator / denominator + i128::from(numerator % denominator != 0);
    Some(if negative { -rounded_up } else { rounded_up })
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    let power = |exponent: u32| 10i128.checked_pow(exponent);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, power(9)?),
        "u" => (1, power(6)?),
        "m" => (1, 1000),
        "k" => (power(3)?, 1),
        "M" => (power(6)?, 1),
        "G" => (power(9)?, 1),
        "T" => (power(12)?, 1),
        "P" => (power(15)?, 1),
        "E" => (power(18)?, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1i128 << 40, 1),
        "Pi" => (1i128 << 50, 1),
        "Ei" => (1i128 << 60, 1),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            if exponent.unsigned_abs() > 18 {
                return None;
            }
            let value = power(exponent.unsigned_abs())?;
            if exponent >= 0 { (value, 1) } else { (1, value) }
        }
    })
}

/// CPU in milli-units; 0 for what cannot be read.
pub fn milli(text: &str) -> i64 {
    clamp(parse_milli(text).unwrap_or(0))
}

/// Bytes, counts: whole units rounded up; 0 for what cannot be read.
pub fn whole(text: &str) -> i64 {
    let milli = parse_milli(text).unwrap_or(0);
    clamp(milli / 1000 + i128::from(milli % 1000 > 0))
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_the_api_defines_them() {
        for (text, expected) in [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("100n", 1),
            ("-1", -1000),
            (".5", 500),
            ("5.", 5000),
        ] {
            assert_eq!(parse_milli(text), Some(expected), "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "--1", "1e99", "99999999999999999999999", "1 Gi", "Ki"] {
            assert_eq!(parse_milli(text), None, "{text}");
        }
        assert_eq!(whole("1500m"), 2);
        assert_eq!(milli("2"), 2000);
    }
}
