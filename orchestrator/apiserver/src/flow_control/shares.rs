//! How the server's seats are shared among priority levels: what each is entitled to, and what it has for now.
//!
//! Entitlements follow from the objects. What a level has moves between what it never lends and what it may borrow at
//! most, by demand; the sum stays what there is. Pure functions of numbers.

/// A level's part of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    pub nominal_shares: u32,
    pub lendable_percent: u32,
    /// `None`: as much as there is.
    pub borrowing_limit_percent: Option<u32>,
}

/// A level's entitlement, in seats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub nominal: u32,
    /// Never lent.
    pub lower: u32,
    /// With all it may borrow.
    pub upper: u32,
}

/// What a level asks for: `lower <= floor <= upper`, and it gets `floor` if there is enough for everybody's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Claim {
    pub lower: u32,
    pub floor: u32,
    pub upper: u32,
    pub target: f64,
}

/// What claims were given.
#[derive(Debug, Clone, PartialEq)]
pub struct Allotment {
    /// One a claim.
    pub seats: Vec<u32>,
    /// What part of its target each got that met no bound; 0 when there was not even enough for the floors.
    pub fair_fraction: f64,
}

/// Targets are never taken for less, so that levels without demand share what nobody asks for.
const TARGET_MIN: f64 = 0.001;

/// The entitlements of levels with these shares in a server of `seats` seats. Each is rounded up, as upstream does.
pub fn limits(seats: u32, levels: &[Shares]) -> Vec<Limits> {
    let sum: f64 = levels.iter().map(|level| f64::from(level.nominal_shares)).sum();
    let limits_of = |level: &Shares| {
        let nominal = match sum > 0.0 {
            true => (f64::from(seats) * f64::from(level.nominal_shares) / sum).ceil() as u32,
            false => 0,
        };
        let part = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let lendable = part(level.lendable_percent.min(100));
        let borrowable = level.borrowing_limit_percent.map_or(seats, part);
        Limits { nominal, lower: nominal - lendable, upper: nominal.saturating_add(borrowable) }
    };
    levels.iter().map(limits_of).collect()
}

/// Gives out `seats`. Everybody gets their lower bound, even if that is more than there is.
pub fn allot(seats: u32, claims: &[Claim]) -> Allotment {
    let sum = |part: fn(&Claim) -> u32| claims.iter().map(|claim| u64::from(part(claim))).sum::<u64>();
    let (lower, floor, upper) = (sum(|c| c.lower), sum(|c| c.floor), sum(|c| c.upper));
    let wanted = u64::from(seats).clamp(lower, upper.max(lower));
    if wanted <= floor {
        let part = if floor > lower { (wanted - lower) as f64 / (floor - lower) as f64 } else { 1.0 };
        let of = |claim: &Claim| f64::from(claim.lower) + f64::from(claim.floor - claim.lower) * part;
        let exact: Vec<f64> = claims.iter().map(of).collect();
        return Allotment { seats: rounded(wanted, &exact, claims), fair_fraction: 0.0 };
    }
    let at = |fraction: f64, claim: &Claim| {
        (fraction * claim.target.max(TARGET_MIN)).clamp(f64::from(claim.floor), f64::from(claim.upper))
    };
    // What is given out rises with the fraction: halve the interval until it is as narrow as numbers get.
    let (mut low, mut high) = (0.0, f64::from(u32::MAX) / TARGET_MIN);
    for _ in 0..128 {
        let middle = (low + high) / 2.0;
        let given: f64 = claims.iter().map(|claim| at(middle, claim)).sum();
        if given < wanted as f64 { low = middle } else { high = middle }
    }
    let exact: Vec<f64> = claims.iter().map(|claim| at(high, claim)).collect();
    Allotment { seats: rounded(wanted, &exact, claims), fair_fraction: high }
}

/// Whole seats that add up to `sum`: those whose parts were cut off most get one more.
fn rounded(sum: u64, exact: &[f64], claims: &[Claim]) -> Vec<u32> {
    let mut seats: Vec<u32> = exact.iter().map(|seats| seats.floor() as u32).collect();
    let mut left = sum.saturating_sub(seats.iter().map(|seats| u64::from(*seats)).sum());
    let mut order: Vec<usize> = (0..exact.len()).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    for index in order {
        if left > 0 && seats[index] < claims[index].upper.max(claims[index].lower) {
            seats[index] += 1;
            left -= 1;
        }
    }
    seats
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(nominal_shares: u32, lendable_percent: u32) -> Shares {
        Shares { nominal_shares, lendable_percent, borrowing_limit_percent: None }
    }

    #[test]
    fn upstreams_defaults_of_600_seats() {
        let levels = [(0, 0), (5, 0), (30, 33), (40, 25), (10, 0), (40, 50), (100, 90), (20, 50)];
        let limits = limits(600, &levels.map(|(nominal, lendable)| shares(nominal, lendable)));
        let nominal: Vec<u32> = limits.iter().map(|l| l.nominal).collect();
        assert_eq!(nominal, [0, 13, 74, 98, 25, 98, 245, 49]);
        let lower: Vec<u32> = limits.iter().map(|l| l.lower).collect();
        assert_eq!(lower, [0, 13, 50, 73, 25, 49, 24, 24]);
    }

    #[test]
    fn a_borrowing_limit_bounds_what_a_level_may_have() {
        let level = Shares { borrowing_limit_percent: Some(50), ..shares(1, 0) };
        assert_eq!(limits(10, &[level, level])[0], Limits { nominal: 5, lower: 5, upper: 8 });
    }

    #[test]
    fn what_one_level_does_not_need_goes_to_the_one_that_does() {
        let idle = Claim { lower: 5, floor: 5, upper: 100, target: 5.0 };
        let busy = Claim { lower: 5, floor: 40, upper: 100, target: 80.0 };
        let given = allot(50, &[idle, busy]);
        assert_eq!(given.seats, [5, 45]);
    }

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let claim =
            (0u32..50, 0u32..50, 0u32..200, 0.0f64..300.0).prop_map(|(lower, more, borrow, target)| {
                let floor = lower + more;
                Claim { lower, floor, upper: floor + borrow, target: target.max(f64::from(floor)) }
            });
        prop::collection::vec(claim, 1..12)
    }

    proptest! {
        #[test]
        fn no_seat_is_lost_or_made_up_and_bounds_are_kept(seats in 0u32..2000, claims in claims()) {
            let given = allot(seats, &claims).seats;
            let sum: u32 = given.iter().sum();
            let lower: u32 = claims.iter().map(|c| c.lower).sum();
            let upper: u32 = claims.iter().map(|c| c.upper).sum();
            prop_assert_eq!(sum, seats.clamp(lower, upper));
            let floors: u32 = claims.iter().map(|c| c.floor).sum();
            for (claim, given) in claims.iter().zip(&given) {
                prop_assert!(*given >= claim.lower && *given <= claim.upper);
                if seats >= floors {
                    prop_assert!(*given >= claim.floor, "{:?} got {}", claim, given);
                }
            }
        }
    }
}
