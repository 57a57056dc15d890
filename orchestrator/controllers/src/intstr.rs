//! Numbers that may be written as percentages.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a percentage of a whole number is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// The number meant, of `total`; `None` for text that is no percentage.
pub fn resolve(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.trim().strip_suffix('%')?.parse().ok()?;
            let scaled = percent.checked_mul(i64::from(total))?;
            let whole = match round {
                Round::Down => scaled.div_euclid(100),
                Round::Up => scaled.div_euclid(100) + i64::from(scaled.rem_euclid(100) != 0),
            };
            i32::try_from(whole).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let percent = |text: &str| IntOrString::String(text.into());
        assert_eq!(resolve(&percent("25%"), 10, Round::Up), Some(3));
        assert_eq!(resolve(&percent("25%"), 10, Round::Down), Some(2));
        assert_eq!(resolve(&percent("100%"), 7, Round::Up), Some(7));
        assert_eq!(resolve(&IntOrString::Int(4), 10, Round::Up), Some(4));
        for text in ["", "25", "x%", "99999999999999999999%"] {
            assert_eq!(resolve(&percent(text), 10, Round::Up), None, "{text}");
        }
    }
}
