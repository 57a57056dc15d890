//! When a certificate is renewed: long before it ends, and not all of them at once.
//!
//! Upstream's nodes do it after 70 to 90 per cent of its life; so does everybody here. What is left is for a network, a
//! server or a person that is not there just then. Pure: randomness is a parameter.

use std::time::SystemTime;

/// The share of a certificate's life after which it is renewed at the earliest.
const FIRST_SHARE: f64 = 0.7;
/// By how much the moments of many differ.
const SPREAD: f64 = 0.2;

/// From when on a certificate may be renewed: where a process starts, it need not wait for its moment.
pub fn first_due(begins_at: SystemTime, ends_at: SystemTime) -> SystemTime {
    due(begins_at, ends_at, 0.0)
}

/// When a certificate is renewed. `jitter` is from 0 to 1, another one for each certificate.
pub fn due(begins_at: SystemTime, ends_at: SystemTime, jitter: f64) -> SystemTime {
    let life = ends_at.duration_since(begins_at).unwrap_or_default();
    begins_at + life.mul_f64(FIRST_SHARE + SPREAD * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_within_a_fifth_of_its_life_that_ends_long_before_it_does() {
        let begins = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let of = |seconds: u64, jitter: f64| {
            due(begins, begins + Duration::from_secs(seconds), jitter).duration_since(begins).unwrap()
        };
        for year in [1_000, 31_536_000] {
            assert_eq!(of(year, 0.0), Duration::from_secs(year * 7 / 10));
            assert_eq!(of(year, 1.0).as_secs_f64().round(), (year * 9 / 10) as f64);
            assert!(of(year, 0.0) < of(year, 0.5) && of(year, 0.5) < of(year, 1.0));
            assert_eq!(of(year, 7.0), of(year, 1.0), "jitter has bounds");
        }
    }

    #[test]
    fn one_that_ends_before_it_begins_is_due_at_once() {
        let begins = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(due(begins, SystemTime::UNIX_EPOCH, 1.0), begins);
    }
}
