//! What a request is worth in seats, before it is worked on. Pure.
//!
//! Lists take a seat for each hundred objects they go through; writes keep a seat for a moment after for each hundred
//! watchers that are told. Everything else takes one.

use std::time::Duration;

use super::queues::Work;

/// No request takes more (upstream's bound of lists from its cache, and of writes).
pub const SEATS_MAX: u32 = 10;
/// Objects that a list goes through on one seat. More than these times [`SEATS_MAX`] need not be counted.
pub const OBJECTS_PER_SEAT: usize = 100;
/// Watchers that are told of a write on one seat. Upstream says 10; here all watchers share one event's bytes, and
/// most are skipped by their filter without being woken.
const WATCHERS_PER_SEAT: usize = 100;
/// How long that keeps a seat (upstream's figure).
const TELLING: Duration = Duration::from_millis(5);

/// The widest request of a level with that many seats nominally, whose flows have hands of that many queues: such that
/// one flow cannot fill the level with a single request a queue.
pub fn seats_max(nominal: u32, hand: Option<u32>) -> u32 {
    let Some(hand) = hand else { return SEATS_MAX };
    let part = (f64::from(nominal) * 0.15).ceil() as u32;
    part.min(nominal / hand.max(1)).clamp(1, SEATS_MAX)
}

/// A list, or a watch that begins with one, of so many objects.
pub fn list(objects: usize, seats_max: u32) -> Work {
    let seats = objects.div_ceil(OBJECTS_PER_SEAT).min(SEATS_MAX as usize) as u32;
    Work { seats: seats.clamp(1, seats_max.max(1)), ..Work::ORDINARY }
}

/// A write of something so many watch.
pub fn write(watchers: usize, seats_max: u32) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::ORDINARY;
    }
    let wanted = watchers.div_ceil(WATCHERS_PER_SEAT) as u32;
    let seats = wanted.min(seats_max.max(1));
    // Fewer seats are kept for longer: the work stays the same.
    Work { seats: 1, lingering_seats: seats, lingering: TELLING * wanted / seats }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_take_seats_by_what_they_go_through() {
        let seats = [0, 100, 101, 1_000_000].map(|objects| list(objects, SEATS_MAX).seats);
        assert_eq!(seats, [1, 1, 2, 10]);
        assert_eq!(list(1_000, 3).seats, 3);
    }

    #[test]
    fn writes_linger_for_their_watchers() {
        assert_eq!(write(99, 10), Work::ORDINARY);
        let narrow = write(2_000, 4);
        assert_eq!((narrow.seats, narrow.lingering_seats, narrow.lingering), (1, 4, TELLING * 5));
    }

    #[test]
    fn a_level_bounds_the_width_of_its_requests() {
        assert_eq!((seats_max(245, Some(6)), seats_max(49, Some(6)), seats_max(1, Some(8))), (10, 8, 1));
        assert_eq!(seats_max(13, None), SEATS_MAX);
    }
}
