//! Several nodes and a network between them that loses, delays and falls apart, in one process with a clock of its own.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const STEP_MS: u64 = 10;
const DELAY_MS: u64 = 20;

/// A simulated cluster.
struct World {
    now_ms: u64,
    wanted: Wanted,
    nodes: Vec<Option<Election>>,
    /// Which nodes can hear each other: those with the same number.
    side: Vec<u8>,
    /// When each node's kernel stops answering, and for what it answers.
    leases: Vec<u64>,
    answers: Vec<BTreeSet<IpAddr>>,
    /// Whether its agent has not yet said what it holds: then the kernel has what the last one held.
    is_fresh: Vec<bool>,
    flying: Vec<(u64, usize, usize, Beat)>,
    told: Vec<(u64, usize, IpAddr)>,
}

fn name(node: usize) -> NodeName {
    format!("node-{node}").into()
}

fn at(node: usize) -> IpAddr {
    IpAddr::from([10, 240, 0, 11 + node as u8])
}

fn vip(number: u8) -> IpAddr {
    IpAddr::from([10, 240, 0, 200 + number])
}

impl World {
    fn new(nodes: usize, addresses: u8) -> Self {
        let names: BTreeMap<NodeName, IpAddr> = (0..nodes).map(|node| (name(node), at(node))).collect();
        let all: Arc<BTreeSet<NodeName>> = Arc::new(names.keys().cloned().collect());
        let addresses = (0..addresses).map(|number| (vip(number), all.clone())).collect();
        let mut world = Self {
            now_ms: 10_000,
            wanted: Wanted { nodes: names, addresses },
            nodes: (0..nodes).map(|_| None).collect(),
            side: vec![0; nodes],
            leases: vec![0; nodes],
            answers: vec![BTreeSet::new(); nodes],
            is_fresh: vec![false; nodes],
            flying: Vec::new(),
            told: Vec::new(),
        };
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    /// An agent starts.
    fn start(&mut self, node: usize) {
        let mut election = Election::new(name(node), Timing::default(), self.now_ms);
        election.want(&self.wanted, self.now_ms);
        self.nodes[node] = Some(election);
        self.is_fresh[node] = true;
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    fn want(&mut self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted);
        for election in self.nodes.iter_mut().flatten() {
            election.want(&self.wanted, self.now_ms);
        }
    }

    fn apply(&mut self, node: usize, effects: Vec<Effect>) {
        let says = |effect: &Effect| matches!(effect, Effect::Hold(_) | Effect::Renew(_));
        if self.is_fresh[node] && effects.iter().any(says) {
            self.is_fresh[node] = false;
            self.answers[node].clear();
        }
        for effect in effects {
            match effect {
                Effect::Hold(address) => drop(self.answers[node].insert(address)),
                Effect::Release(address) => drop(self.answers[node].remove(&address)),
                Effect::Renew(for_ms) => self.leases[node] = self.now_ms + for_ms,
                Effect::Tell(address) => self.told.push((self.now_ms, node, address)),
                Effect::Send(to, beat) => {
                    let to = (0..self.nodes.len()).find(|other| at(*other) == to).expect("a node");
                    if self.side[node] == self.side[to] {
                        self.flying.push((self.now_ms + DELAY_MS, node, to, beat));
                    }
                }
            }
        }
    }

    /// Lets time pass, and checks something after every moment.
    fn run(&mut self, for_ms: u64, mut check: impl FnMut(&World)) {
        let end_ms = self.now_ms + for_ms;
        while self.now_ms < end_ms {
            self.now_ms += STEP_MS;
            let (landed, flying) =
                std::mem::take(&mut self.flying).into_iter().partition(|it| it.0 <= self.now_ms);
            self.flying = flying;
            for (_, from, to, beat) in landed {
                let now_ms = self.now_ms;
                let answer =
                    self.nodes[to].as_mut().and_then(|election| election.hear(at(from), beat, now_ms));
                self.apply(to, answer.into_iter().collect());
            }
            for node in 0..self.nodes.len() {
                let Some(election) = &mut self.nodes[node] else { continue };
                let effects = election.step(self.now_ms);
                self.apply(node, effects);
            }
            check(self);
        }
    }

    /// Whose kernel answers for an address on a side of the network.
    fn answering(&self, address: IpAddr, side: u8) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|node| self.side[*node] == side && self.leases[*node] > self.now_ms)
            .filter(|node| self.answers[*node].contains(&address))
            .collect()
    }

    fn holder(&self, address: IpAddr) -> usize {
        match self.answering(address, 0)[..] {
            [holder] => holder,
            ref several => panic!("{address} at {} is answered for by {several:?}", self.now_ms),
        }
    }

    fn all(&self) -> Vec<IpAddr> {
        self.wanted.addresses.keys().copied().collect()
    }
}

#[test]
fn a_cluster_that_starts_divides_the_addresses_and_tells_of_each_several_times() {
    let mut world = World::new(3, 30);
    world.run(6_000, |_| {});
    let holders: BTreeSet<usize> = world.all().into_iter().map(|address| world.holder(address)).collect();
    assert_eq!(holders.len(), 3, "all nodes have some");
    for address in world.all() {
        let told: Vec<_> = world.told.iter().filter(|it| it.2 == address).collect();
        assert_eq!(told.len(), TELL_AFTER_MS.len());
        assert!(told.iter().all(|it| it.1 == world.holder(address)));
    }
}

#[test]
fn what_a_dead_node_held_is_taken_within_a_second_and_a_half_and_never_held_by_two() {
    let mut world = World::new(4, 40);
    world.run(6_000, |_| {});
    let before: BTreeMap<IpAddr, usize> = world.all().into_iter().map(|it| (it, world.holder(it))).collect();
    world.kill(2);
    let killed_at_ms = world.now_ms;
    world.run(5_000, |world| {
        for (address, holder) in &before {
            let answering = world.answering(*address, 0);
            assert!(answering.len() <= 1, "{address}: {answering:?}");
            if *holder != 2 {
                assert_eq!(answering, [*holder], "what others held stays");
            } else if world.now_ms > killed_at_ms + 1_500 {
                assert!(answering.len() == 1 && answering[0] != 2, "{address}: {answering:?}");
            }
        }
    });
}

#[test]
fn a_node_that_comes_back_waits_and_then_takes_its_own_without_a_gap() {
    let mut world = World::new(3, 30);
    world.run(6_000, |_| {});
    let before: Vec<usize> = world.all().into_iter().map(|address| world.holder(address)).collect();
    world.kill(0);
    world.run(3_000, |_| {});
    world.start(0);
    world.run(2_000, |world| {
        for address in world.all() {
            assert_ne!(world.holder(address), 0, "too early");
        }
    });
    world.run(6_000, |world| {
        for address in world.all() {
            assert!(!world.answering(address, 0).is_empty(), "{address} waits for nobody");
        }
    });
    assert_eq!(world.all().into_iter().map(|it| world.holder(it)).collect::<Vec<_>>(), before);
}

#[test]
fn an_agent_that_is_back_before_it_is_missed_keeps_what_it_held() {
    let mut world = World::new(3, 30);
    world.run(6_000, |_| {});
    let before: Vec<usize> = world.all().into_iter().map(|address| world.holder(address)).collect();
    world.kill(1);
    world.run(700, |_| {});
    world.start(1);
    let told_before = world.told.len();
    world.run(5_000, |_| {});
    assert_eq!(world.all().into_iter().map(|it| world.holder(it)).collect::<Vec<_>>(), before);
    assert!(world.told[told_before..].iter().all(|it| it.1 == 1), "nobody else took anything");
}

#[test]
fn one_that_leaves_is_followed_at_once() {
    let mut world = World::new(3, 30);
    world.run(6_000, |_| {});
    let farewell = world.nodes[0].as_mut().expect("running").leave();
    world.apply(0, farewell);
    world.kill(0);
    world.run(100, |_| {});
    for address in world.all() {
        assert!(world.answering(address, 0).iter().any(|node| *node != 0), "{address} has a successor");
    }
    world.run(1_500, |_| {});
    world.all().into_iter().for_each(|address| assert_ne!(world.holder(address), 0));
}

#[test]
fn a_node_that_may_not_any_more_lets_go_without_a_gap() {
    let mut world = World::new(3, 30);
    world.run(6_000, |_| {});
    let rest: Arc<BTreeSet<NodeName>> = Arc::new([name(1), name(2)].into());
    world.want(|wanted| wanted.addresses.values_mut().for_each(|candidates| *candidates = rest.clone()));
    world.run(2_000, |world| {
        for address in world.all() {
            assert!(!world.answering(address, 0).is_empty(), "{address} waits for nobody");
        }
    });
    world.all().into_iter().for_each(|address| assert_ne!(world.holder(address), 0));
}

#[test]
fn an_address_that_is_no_more_is_let_go_at_once() {
    let mut world = World::new(2, 3);
    world.run(6_000, |_| {});
    world.want(|wanted| drop(wanted.addresses.remove(&vip(0))));
    world.run(STEP_MS, |_| {});
    assert!(world.answering(vip(0), 0).is_empty());
    assert_eq!(world.answering(vip(1), 0).len(), 1);
}

#[test]
fn each_part_of_a_network_that_falls_apart_has_a_holder_and_the_whole_has_one_again() {
    let mut world = World::new(3, 30);
    world.run(6_000, |_| {});
    world.side = vec![1, 0, 0];
    world.run(4_000, |_| {});
    for address in world.all() {
        assert_eq!((world.answering(address, 1), world.answering(address, 0).len()), (vec![0], 1));
    }
    world.side = vec![0, 0, 0];
    world.run(800, |_| {});
    world.run(8_000, |world| {
        for address in world.all() {
            let answering = world.answering(address, 0);
            assert!(!answering.is_empty(), "{address} at {}", world.now_ms);
        }
    });
    for address in world.all() {
        assert_eq!(world.answering(address, 0).len(), 1);
    }
}

#[test]
fn a_node_alone_answers_through_its_agents_absence() {
    let mut world = World::new(1, 1);
    world.run(2_000, |_| {});
    world.kill(0);
    world.run(600_000, |world| assert_eq!(world.answering(vip(0), 0), [0]));
}

#[test]
fn beats_are_few_and_questions_are_answered_once() {
    let mut world = World::new(3, 30);
    world.run(6_000, |_| {});
    let mut sent = 0;
    for node in 0..3 {
        let election = world.nodes[node].as_mut().expect("running");
        for tick in 0..100 {
            let effects = election.step(world.now_ms + tick * STEP_MS);
            sent += effects.iter().filter(|effect| matches!(effect, Effect::Send(..))).count();
        }
    }
    assert!(sent <= 3 * 2 * 6, "{sent} beats in a second");

    let stranger = IpAddr::from([10, 240, 0, 99]);
    let election = world.nodes[0].as_mut().expect("running");
    let asks = Beat { asks: true, ..Beat::default() };
    assert!(election.hear(stranger, asks, world.now_ms).is_some());
    let answer = Beat { answers: true, able: true, ..Beat::default() };
    assert_eq!(election.hear(stranger, answer, world.now_ms), None, "answers are not answered");
}

#[test]
fn the_next_step_is_never_due_now() {
    let mut world = World::new(3, 5);
    world.run(7_000, |world| {
        for election in world.nodes.iter().flatten() {
            let due_ms = election.due_ms(world.now_ms);
            assert!(due_ms > world.now_ms && due_ms <= world.now_ms + 200);
        }
    });
}

/// Something that happens to the cluster.
#[derive(Debug, Clone)]
enum Event {
    Kill(usize),
    Start(usize),
    Side(usize, u8),
    Pause(u64),
}

fn event(nodes: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..nodes).prop_map(Event::Kill),
        (0..nodes).prop_map(Event::Start),
        (0..nodes, 0..2_u8).prop_map(|(node, side)| Event::Side(node, side)),
        (0..3_000_u64).prop_map(Event::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_the_end_every_address_has_one_holder(
        events in prop::collection::vec(event(4), 0..30),
    ) {
        let mut world = World::new(4, 8);
        for event in events {
            match event {
                Event::Kill(node) => world.kill(node),
                Event::Start(node) if world.nodes[node].is_none() => world.start(node),
                Event::Start(_) => {}
                Event::Side(node, side) => world.side[node] = side,
                Event::Pause(for_ms) => world.run(for_ms, |_| {}),
            }
        }
        world.side = vec![0; 4];
        world.kill(3);
        if world.nodes[0].is_none() {
            world.start(0);
        }
        // Longer than anything takes: to be missed, to come back, to settle.
        world.run(9_000, |_| {});
        world.run(3_000, |world| {
            for address in world.all() {
                let group = plan_groups(&world.wanted, "node-0");
                let living = (0..4).filter(|node| world.nodes[*node].is_some());
                let can: Vec<usize> = living
                    .filter(|node| plan_groups(&world.wanted, &name(*node)).contains_key(&address))
                    .collect();
                let answering = world.answering(address, 0);
                assert_eq!(answering.len(), can.len().min(1), "{address} {can:?} {group:?}");
            }
        });
    }
}
