//! What the queues promise, for single stories and for any sequence of events.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const QUEUES: Queuing = Queuing::Queue { queues: 8, hand: 2, length_max: 20 };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn wide(seats: u32) -> Work {
    Work { seats, ..Work::ORDINARY }
}

/// A level, its clock, and what has become of requests.
struct Level {
    set: QueueSet,
    now: Duration,
    started: Vec<RequestId>,
    refused: Vec<(RequestId, Refusal)>,
}

impl Level {
    fn new(queuing: Queuing, seats: u32) -> Self {
        let set = QueueSet::new(queuing, seats, Duration::ZERO);
        Self { set, now: Duration::ZERO, started: Vec::new(), refused: Vec::new() }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.set.step(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Started { id, .. } => self.started.push(id),
                Effect::Refused { id, why } => self.refused.push((id, why)),
                Effect::Waits { .. } => {}
            }
        }
    }

    fn arrive(&mut self, id: RequestId, hash: u64, work: Work) {
        self.step(Event::Arrives { id, hash, work });
    }

    fn leave(&mut self, id: RequestId) {
        self.step(Event::Leaves { id });
    }
}

#[test]
fn a_level_without_queues_refuses_what_it_has_no_seat_for() {
    let mut level = Level::new(Queuing::Reject, 2);
    for id in 0..3 {
        level.arrive(id, 0, Work::ORDINARY);
    }
    assert_eq!(
        (&level.started[..], &level.refused[..]),
        (&[0, 1][..], &[(2, Refusal::ConcurrencyLimit)][..])
    );
    level.leave(0);
    level.arrive(3, 0, Work::ORDINARY);
    assert_eq!(level.started, [0, 1, 3]);
}

#[test]
fn an_exempt_level_starts_everything_and_still_counts() {
    let mut level = Level::new(Queuing::Exempt, 0);
    for id in 0..100 {
        level.arrive(id, 0, wide(3));
    }
    assert_eq!((level.started.len(), level.set.totals().seats_in_use), (100, 300));
}

#[test]
fn a_full_queue_refuses_and_the_others_do_not() {
    let one_queue_a_flow = Queuing::Queue { queues: 64, hand: 1, length_max: 2 };
    let mut level = Level::new(one_queue_a_flow, 1);
    for id in 0..5 {
        level.arrive(id, 7, Work::ORDINARY);
    }
    assert_eq!(level.refused, [(3, Refusal::QueueFull), (4, Refusal::QueueFull)]);
    level.arrive(5, 8, Work::ORDINARY);
    assert_eq!((level.refused.len(), level.set.totals().waiting), (2, 3));
}

#[test]
fn one_request_of_a_modest_flow_overtakes_the_backlog_of_a_greedy_one() {
    let mut level = Level::new(Queuing::Queue { queues: 64, hand: 1, length_max: 100 }, 1);
    for id in 0..50 {
        level.arrive(id, 1, Work::ORDINARY);
    }
    level.now = ms(10);
    level.arrive(50, 2, Work::ORDINARY);
    level.leave(0);
    assert_eq!(level.started, [0, 50]);
}

#[test]
fn a_wide_request_is_not_overtaken_for_ever() {
    let mut level = Level::new(Queuing::Queue { queues: 64, hand: 1, length_max: 100 }, 4);
    for id in 0..4 {
        level.arrive(id, 1, Work::ORDINARY);
    }
    level.arrive(4, 2, wide(4));
    for id in 5..10 {
        level.arrive(id, 3, Work::ORDINARY);
    }
    level.now = ms(50);
    for id in 0..4 {
        level.leave(id);
        level.now += ms(1);
    }
    // Flow 3 has had its part by now; the seat that is free waits for three more.
    assert_eq!(level.started, [0, 1, 2, 3, 5, 6, 7]);
    for id in 5..8 {
        level.leave(id);
    }
    assert_eq!(level.started[7], 4);
}

#[test]
fn what_wants_more_seats_than_there_are_gets_them_all() {
    let mut level = Level::new(QUEUES, 2);
    level.arrive(0, 1, wide(10));
    assert_eq!(level.set.totals().seats_in_use, 2);
}

#[test]
fn seats_linger_after_a_write_that_many_watch() {
    let mut level = Level::new(QUEUES, 2);
    let write = Work { seats: 1, lingering_seats: 2, lingering: ms(5) };
    level.arrive(0, 1, write);
    level.arrive(1, 1, Work::ORDINARY);
    level.leave(0);
    assert_eq!((level.started.len(), level.set.next_release()), (1, Some(ms(5))));
    level.now = ms(5);
    level.step(Event::Passes);
    assert_eq!(level.started, [0, 1]);
}

#[test]
fn a_level_that_loses_its_seats_starts_nothing_until_it_has_some() {
    let mut level = Level::new(QUEUES, 2);
    level.arrive(0, 1, Work::ORDINARY);
    level.step(Event::Configured { queuing: QUEUES, seats_max: 0 });
    level.arrive(1, 1, Work::ORDINARY);
    level.leave(0);
    assert_eq!((level.started.len(), level.set.totals().waiting), (1, 1));
    level.step(Event::Configured { queuing: QUEUES, seats_max: 1 });
    assert_eq!(level.started, [0, 1]);
}

/// One thing a hostile or unlucky world does.
#[derive(Debug, Clone)]
enum Act {
    Arrive {
        flow: u64,
        work: Work,
    },
    /// The n-th of those that are here leaves, waiting or not.
    Leave {
        n: usize,
    },
    Wait {
        ms: u64,
    },
    Configure {
        queuing: Queuing,
        seats: u32,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let work = (1u32..6, 0u32..6, 0u64..20).prop_map(|(seats, lingering_seats, lingering)| Work {
        seats,
        lingering_seats,
        lingering: ms(lingering),
    });
    let queuing = prop_oneof![
        Just(Queuing::Reject),
        (1u32..20, 1u32..6, 1u32..8).prop_map(|(queues, hand, length_max)| Queuing::Queue {
            queues,
            hand,
            length_max
        }),
    ];
    let act = prop_oneof![
        6 => (0u64..6, work).prop_map(|(flow, work)| Act::Arrive { flow, work }),
        5 => (0usize..40).prop_map(|n| Act::Leave { n }),
        3 => (0u64..30).prop_map(|ms| Act::Wait { ms }),
        1 => (queuing, 0u32..12).prop_map(|(queuing, seats)| Act::Configure { queuing, seats }),
    ];
    prop::collection::vec(act, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens: no more seats are given than there are, no queue grows past its limit, what is told adds up,
    /// and when everybody has left every seat is back.
    #[test]
    fn seats_are_never_overdrawn_nor_lost(acts in acts()) {
        let mut level = Level::new(Queuing::Queue { queues: 4, hand: 2, length_max: 3 }, 4);
        let mut here: Vec<RequestId> = Vec::new();
        let mut length_max = 3;
        for (id, act) in acts.into_iter().enumerate() {
            let id = id as RequestId;
            let before = (level.set.totals(), level.started.len());
            match act {
                Act::Arrive { flow, work } => {
                    level.arrive(id, flow.wrapping_mul(0x9e37_79b9_7f4a_7c15), work);
                    if level.refused.last().is_none_or(|(refused, _)| *refused != id) {
                        here.push(id);
                    }
                }
                Act::Leave { n } if n < here.len() => {
                    let id = here.remove(n);
                    level.leave(id);
                }
                Act::Leave { .. } => level.leave(1_000_000),
                Act::Wait { ms: time } => {
                    level.now += ms(time);
                    level.step(Event::Passes);
                }
                Act::Configure { queuing, seats } => {
                    if let Queuing::Queue { length_max: new, .. } = queuing {
                        length_max = length_max.max(new as usize);
                    }
                    level.step(Event::Configured { queuing, seats_max: seats });
                }
            }
            let totals = level.set.totals();
            if level.started.len() > before.1 {
                prop_assert!(totals.seats_in_use <= level.set.seats_max);
            }
            prop_assert_eq!(totals.waiting + totals.executing, here.len());
            let views = level.set.views();
            prop_assert!(views.iter().all(|queue| queue.waiting <= length_max));
            prop_assert_eq!(views.iter().map(|queue| queue.waiting).sum::<usize>(), totals.waiting);
            prop_assert_eq!(views.iter().map(|queue| queue.seats_waiting).sum::<u32>(), totals.seats_waiting);
            // Nobody waits while the next in turn would fit.
            if totals.waiting > 0 && level.set.seats_max > 0 {
                prop_assert!(totals.seats_in_use > 0);
            }
        }
        for id in here {
            level.leave(id);
        }
        level.now += ms(1000);
        level.step(Event::Passes);
        prop_assert_eq!(level.set.totals(), Totals::default());
        prop_assert!(level.set.is_idle() && level.set.queues.is_empty() && level.set.lingering.is_empty());
    }

    /// Flows that always have requests waiting, each in a queue of its own: whoever waits is served within a bounded
    /// number of others, however unequal the crowds and however long requests take.
    #[test]
    fn no_flow_starves(
        crowds in prop::collection::vec(1u64..40, 2..6),
        times in prop::collection::vec(1u64..12, 40),
        seats in 1u32..5,
    ) {
        let flows = crowds.len();
        let mut level = Level::new(Queuing::Queue { queues: 1 << 20, hand: 1, length_max: 1000 }, seats);
        let mut next = 0;
        let mut flow_of = BTreeMap::new();
        let mut ends: BTreeMap<(Duration, RequestId), ()> = BTreeMap::new();
        let mut waits_since: BTreeMap<RequestId, usize> = BTreeMap::new();
        let mut seen = 0;
        let mut longest = 0;
        let arrive = |level: &mut Level, next: &mut u64, flow: usize, flow_of: &mut BTreeMap<_, _>| {
            *next += 1;
            flow_of.insert(*next, flow);
            level.arrive(*next, flow as u64 * 1_000 + 1, Work::ORDINARY);
            *next
        };
        for (flow, crowd) in crowds.iter().enumerate() {
            for _ in 0..*crowd {
                let id = arrive(&mut level, &mut next, flow, &mut flow_of);
                waits_since.insert(id, 0);
            }
        }
        let mut last_of = vec![0usize; flows];
        for _ in 0..400 {
            for (at, id) in level.started[seen..].iter().enumerate() {
                let served = seen + at;
                let flow = flow_of[id];
                longest = longest.max(served - last_of[flow]);
                last_of[flow] = served;
                let takes = ms(times[(*id as usize * 7 + flow) % times.len()]);
                ends.insert((level.now + takes, *id), ());
            }
            seen = level.started.len();
            let Some(((at, id), ())) = ends.pop_first() else { break };
            level.now = at;
            level.leave(id);
            // A flow keeps its crowd: one goes, the next comes.
            arrive(&mut level, &mut next, flow_of[&id], &mut flow_of);
        }
        prop_assert!(level.started.len() > 300);
        // Each of a flow's rivals gets at most what its longest and shortest requests differ by, once for each seat.
        let bound = flows * (seats as usize + 1) * 12;
        prop_assert!(longest <= bound, "{longest} others were served first, of {flows} flows with {seats} seats");
    }

    /// Flows that take as long as each other get as much as each other, whatever their crowds.
    #[test]
    fn equal_flows_get_equal_parts(crowds in prop::collection::vec(4u64..60, 2..5), seats in 1u32..4) {
        let mut level = Level::new(Queuing::Queue { queues: 1 << 20, hand: 1, length_max: 1000 }, seats);
        let mut flow_of = BTreeMap::new();
        let mut next = 0;
        let mut done = 0;
        for (flow, crowd) in crowds.iter().enumerate() {
            for _ in 0..*crowd {
                next += 1;
                flow_of.insert(next, flow);
                level.arrive(next, flow as u64 * 1_000 + 1, Work::ORDINARY);
            }
        }
        let rounds = 300;
        for _ in 0..rounds {
            level.now += ms(3);
            for _ in 0..seats {
                let id = level.started[done];
                done += 1;
                level.leave(id);
                next += 1;
                flow_of.insert(next, flow_of[&id]);
                level.arrive(next, flow_of[&id] as u64 * 1_000 + 1, Work::ORDINARY);
            }
        }
        let mut counts = vec![0usize; crowds.len()];
        for id in &level.started[..done] {
            counts[flow_of[id]] += 1;
        }
        let fair = done / crowds.len();
        for count in &counts {
            prop_assert!(count.abs_diff(fair) <= fair / 5 + 4 + seats as usize, "{counts:?}");
        }
    }
}
