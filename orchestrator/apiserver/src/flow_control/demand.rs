//! How many seats a priority level could use, over time: average, spread and peak, and the slow curve made of them.
//!
//! Pure: whoever holds a [`Demand`] tells it how long each value lasted.

use std::time::Duration;

/// How much of the old curve a new, lower reading leaves (upstream's coefficient: half of a peak is forgotten in five
/// minutes of 10-second periods).
const SMOOTHING: f64 = 0.977;

/// What was seen since the last reading.
#[derive(Debug, Default)]
pub struct Demand {
    seconds: f64,
    /// Seats times seconds, and squared seats times seconds.
    area: f64,
    squares: f64,
    peak: u32,
}

/// One reading.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    pub average: f64,
    pub deviation: f64,
    pub peak: u32,
}

/// What readings add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Curve {
    pub last: Reading,
    /// Follows a rise at once and a fall slowly.
    pub smoothed: f64,
}

// === impl Demand ===

impl Demand {
    /// The demand was `seats` for this long.
    pub fn lasted(&mut self, seats: u32, time: Duration) {
        let (seats, seconds) = (f64::from(seats), time.as_secs_f64());
        self.seconds += seconds;
        self.area += seats * seconds;
        self.squares += seats * seats * seconds;
    }

    /// The demand became `seats`, however briefly.
    pub fn became(&mut self, seats: u32) {
        self.peak = self.peak.max(seats);
    }

    /// What was seen, and begins anew from `seats`. `None` when no time has passed.
    pub fn read(&mut self, seats: u32) -> Option<Reading> {
        let seen = std::mem::take(self);
        self.peak = seats;
        if seen.seconds <= 0.0 {
            self.peak = self.peak.max(seen.peak);
            return None;
        }
        let average = seen.area / seen.seconds;
        let variance = (seen.squares / seen.seconds - average * average).max(0.0);
        Some(Reading { average, deviation: variance.sqrt(), peak: seen.peak })
    }
}

// === impl Curve ===

impl Curve {
    pub fn follow(&mut self, reading: Reading) {
        let envelope = reading.average + reading.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        self.last = reading;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_weighted_by_time_and_knows_the_peak() {
        let mut demand = Demand::default();
        demand.became(4);
        demand.lasted(4, Duration::from_secs(1));
        demand.became(9);
        demand.became(0);
        demand.lasted(0, Duration::from_secs(1));
        let reading = demand.read(0).unwrap();
        assert_eq!((reading.average, reading.deviation, reading.peak), (2.0, 2.0, 9));
        assert_eq!(demand.read(3), None);
    }

    #[test]
    fn the_curve_rises_at_once_and_falls_slowly() {
        let mut curve = Curve::default();
        curve.follow(Reading { average: 10.0, deviation: 0.0, peak: 10 });
        assert_eq!(curve.smoothed, 10.0);
        curve.follow(Reading::default());
        assert!((curve.smoothed - 9.77).abs() < 1e-9);
    }
}
