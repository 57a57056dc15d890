//! Numbers as Go prints them in messages.

/// A limit in a message: a whole number beside integers, Go's `%v` of a float otherwise.
pub(super) fn go_number(value: f64, whole: bool) -> String {
    if whole && value.fract() == 0.0 && value.abs() < 9e15 {
        return format!("{}", value as i64);
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_like_gos() {
        assert_eq!(go_number(10.0, true), "10");
        assert_eq!(go_number(0.5, false), "0.5");
        assert_eq!(go_number(-3.25, true), "-3.25");
        assert_eq!(go_number(1_000_000.0, false), "1e+06");
        assert_eq!(go_number(1_000_000.0, true), "1000000");
        assert_eq!(go_number(0.00001, false), "1e-05");
    }
}
