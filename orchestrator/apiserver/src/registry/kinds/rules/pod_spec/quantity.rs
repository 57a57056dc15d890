//! Quantities as numbers, for the comparisons validation makes. Thousandths, saturating.

/// `1`, `500m`, `2Gi`, `1e3` in thousandths; `None` when it is none.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let split =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: f64 = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            10f64.powi(digits.parse::<i32>().ok()?.clamp(-30, 30))
        }
    };
    // Whole numbers stay exact; the rest is compared, never stored.
    if let Ok(whole) = number.parse::<i128>()
        && factor >= 1.0
    {
        return Some(whole.saturating_mul(factor as i128).saturating_mul(1000));
    }
    let value: f64 = number.parse().ok()?;
    Some((value * factor * 1000.0).ceil() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_suffixes() {
        assert_eq!(milli("1"), Some(1000));
        assert_eq!(milli("500m"), Some(500));
        assert_eq!(milli("1Ki"), Some(1_024_000));
        assert_eq!(milli("1e3"), milli("1k"));
        assert_eq!(milli("0.5"), milli("500m"));
        assert_eq!(milli("-1"), Some(-1000));
        assert_eq!(milli("x"), None);
    }
}
