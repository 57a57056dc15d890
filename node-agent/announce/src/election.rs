//! Whether this node holds an address now. Pure: what is heard and the time come in, what to do comes out.
//!
//! Nodes are ordered by two things: who is settled comes before who has just come back, and then the group's order
//! decides. Every node tells its own standing, so that all who hear the same order the same way, and of those who can
//! be heard the first holds the address. A node that comes back, from a crash or from behind a cut, so leaves addresses
//! for a while where they went; but one that was gone so briefly that nobody missed it goes on as if nothing had been.
//!
//! Nobody is asked before an address is taken: if the network falls apart, each part has a holder, which is what each
//! part needs. The lease in the kernel ends before the others stop waiting, so that a dead agent's node and its
//! successor never answer at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::NodeName;
use crate::beat::Beat;
use crate::groups::{Groups, Wanted, plan_groups};

/// When to tell the network of an address that was taken, from then on: the first may be lost, and so may the next.
const TELL_AFTER_MS: [u64; 5] = [0, 150, 500, 1_500, 4_000];

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two beats.
    pub beat_ms: u64,
    /// Without a beat for this long a node counts as dead.
    pub dead_after_ms: u64,
    /// How long the kernel answers without hearing from the agent. Shorter than the former: see the module.
    pub lease_ms: u64,
    /// The same where no other node could take over: then an agent's absence must not make addresses unreachable.
    pub lease_alone_ms: u64,
    /// How long one that starts waits for answers.
    pub listen_ms: u64,
    /// How long one that comes back leaves addresses to others.
    pub return_after_ms: u64,
    /// How long an address is still answered for after another node has taken it.
    pub linger_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            beat_ms: 200,
            dead_after_ms: 1_200,
            lease_ms: 1_000,
            lease_alone_ms: 3_600_000,
            listen_ms: 400,
            return_after_ms: 3_000,
            linger_ms: 300,
        }
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer for the address.
    Hold(IpAddr),
    /// Let the kernel answer for this many milliseconds from now.
    Renew(u64),
    /// Answer for it no more.
    Release(IpAddr),
    /// Tell the network that the address is here.
    Tell(IpAddr),
    /// Send a beat.
    Send(IpAddr, Beat),
}

/// What this node is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Cannot hold anything yet, and is not heard of.
    Unable,
    /// Has asked the others, since when.
    Listening { since_ms: u64 },
    /// Leaves addresses to others until then.
    Returning { until_ms: u64 },
    /// One like all.
    Settled,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    address: IpAddr,
    /// Since when it is one.
    since_ms: u64,
    /// When it was last heard, and what it said.
    heard: Option<(u64, Beat)>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    /// Since when the network is being told, and how often it was.
    telling_since_ms: u64,
    told: usize,
    /// When it ends, once another has it.
    until_ms: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Election {
    own: NodeName,
    timing: Timing,
    names: BTreeMap<IpAddr, NodeName>,
    addresses: BTreeSet<IpAddr>,
    groups: Groups,
    peers: BTreeMap<NodeName, Peer>,
    standing: Standing,
    /// Heard nobody for a while: others may have taken over.
    is_cut_off: bool,
    held: BTreeMap<IpAddr, Hold>,
    beat_at_ms: u64,
    stepped_at_ms: u64,
}

// === impl Election ===

impl Election {
    /// A node that holds nothing and cannot yet.
    pub fn new(own: NodeName, timing: Timing, now_ms: u64) -> Self {
        Self {
            own,
            timing,
            names: BTreeMap::new(),
            addresses: BTreeSet::new(),
            groups: Groups::new(),
            peers: BTreeMap::new(),
            standing: Standing::Unable,
            is_cut_off: false,
            held: BTreeMap::new(),
            beat_at_ms: now_ms,
            stepped_at_ms: now_ms,
        }
    }

    /// Takes note of what is to be announced and by whom it may be. Who is first told so can hold addresses from now on.
    pub fn want(&mut self, wanted: &Wanted, now_ms: u64) {
        self.groups = plan_groups(wanted, &self.own);
        self.addresses = wanted.addresses.keys().copied().collect();
        self.names = wanted.nodes.iter().map(|(node, address)| (*address, node.clone())).collect();
        let mut peers = BTreeMap::new();
        for node in self.groups.values().flatten().filter(|node| **node != self.own) {
            let Some(address) = wanted.nodes.get(node).copied() else { continue };
            let known = self.peers.get(node).filter(|peer| peer.address == address).copied();
            peers.insert(node.clone(), known.unwrap_or(Peer { address, since_ms: now_ms, heard: None }));
        }
        self.peers = peers;
        if self.standing == Standing::Unable {
            self.standing = Standing::Listening { since_ms: now_ms };
            self.beat_at_ms = now_ms;
        }
    }

    /// Takes note of a beat. What comes out is the answer, if it needs one.
    pub fn hear(&mut self, from: IpAddr, beat: Beat, now_ms: u64) -> Option<Effect> {
        let dead_after_ms = self.timing.dead_after_ms;
        let name = self.names.get(&from).cloned();
        let mut is_peer = false;
        let mut is_back = false;
        if let Some(peer) = name.as_ref().and_then(|name| self.peers.get_mut(name)) {
            is_peer = true;
            if !beat.asks {
                is_back = peer.heard.is_some_and(|(at_ms, _)| now_ms >= at_ms + dead_after_ms);
                peer.heard = Some((now_ms, beat));
            }
        }
        if is_back {
            // It may have told others that it holds what we hold.
            for hold in self.held.values_mut() {
                (hold.telling_since_ms, hold.told) = (now_ms, 0);
            }
        }
        // A peer hears from us anyway; who counts on our beats without our knowing is told at once.
        let wants_answer = beat.asks || !is_peer;
        let can_answer = matches!(self.standing, Standing::Settled | Standing::Returning { .. });
        (wants_answer && can_answer && !beat.answers).then(|| {
            let counts_you = name.as_ref().and_then(|name| self.peers.get(name));
            let counts_you = counts_you.is_some_and(|peer| self.is_alive(peer, now_ms));
            Effect::Send(from, Beat { answers: true, ..self.beat(counts_you) })
        })
    }

    /// What is to be done now.
    pub fn step(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now_ms > self.stepped_at_ms + self.timing.lease_ms {
            // This process stood still: the kernel has stopped answering, and others may have taken over.
            self.is_cut_off = true;
        }
        self.stepped_at_ms = now_ms;
        if self.standing == Standing::Unable {
            return effects;
        }
        self.stand(now_ms);
        let beats = now_ms >= self.beat_at_ms;
        if !matches!(self.standing, Standing::Listening { .. }) {
            self.hold(now_ms, beats, &mut effects);
        }
        if beats {
            self.beat_at_ms = now_ms + self.timing.beat_ms;
            for peer in self.peers.values() {
                effects.push(Effect::Send(peer.address, self.beat(self.is_alive(peer, now_ms))));
            }
        }
        effects
    }

    /// What is to be done before this node ends: others need not wait until they miss it. What it holds it answers for
    /// until the lease runs out, while they take over.
    pub fn leave(&mut self) -> Vec<Effect> {
        if self.standing == Standing::Unable {
            return Vec::new();
        }
        self.standing = Standing::Unable;
        let beat = Beat { able: false, ..self.beat(true) };
        self.peers.values().map(|peer| Effect::Send(peer.address, beat)).collect()
    }

    /// When the next step is due if nothing is heard.
    pub fn due_ms(&self, now_ms: u64) -> u64 {
        let Timing { dead_after_ms, listen_ms, .. } = self.timing;
        let standing = match self.standing {
            Standing::Listening { since_ms } => Some(since_ms + listen_ms),
            Standing::Returning { until_ms } => Some(until_ms),
            _ => None,
        };
        let peers = self.peers.values().map(|peer| {
            peer.heard.map_or(peer.since_ms, |(at_ms, _)| at_ms.max(peer.since_ms)) + dead_after_ms
        });
        let holds = self.held.values().flat_map(|hold| {
            let tell = TELL_AFTER_MS.get(hold.told).map(|after_ms| hold.telling_since_ms + after_ms);
            [tell, hold.until_ms]
        });
        let all = peers.chain(holds.flatten()).chain(standing).filter(|at_ms| *at_ms > now_ms);
        all.min().unwrap_or(u64::MAX).min(self.beat_at_ms.max(now_ms + 1))
    }

    /// How long the kernel may answer without hearing from here again.
    fn lease_ms(&self) -> u64 {
        let has_others = |address: &IpAddr| self.groups.get(address).is_none_or(|group| group.len() > 1);
        if !self.held.is_empty() && !self.held.keys().any(has_others) {
            self.timing.lease_alone_ms
        } else {
            self.timing.lease_ms
        }
    }

    /// What this node holds.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> {
        self.held.iter().filter(|(_, hold)| hold.until_ms.is_none()).map(|(address, _)| *address)
    }

    fn beat(&self, counts_you: bool) -> Beat {
        Beat {
            asks: matches!(self.standing, Standing::Listening { .. }),
            answers: false,
            able: matches!(self.standing, Standing::Settled | Standing::Returning { .. }),
            settled: self.standing == Standing::Settled,
            counts_you,
        }
    }

    fn is_alive(&self, peer: &Peer, now_ms: u64) -> bool {
        peer.heard.is_some_and(|(at_ms, _)| now_ms < at_ms + self.timing.dead_after_ms)
    }

    /// What the living peers say.
    fn heard(&self, now_ms: u64) -> impl Iterator<Item = Beat> {
        self.peers
            .values()
            .filter(move |peer| self.is_alive(peer, now_ms))
            .filter_map(|peer| Some(peer.heard?.1))
    }

    /// Finds this node's standing.
    fn stand(&mut self, now_ms: u64) {
        let somebody_is_settled = self.heard(now_ms).any(|beat| beat.able && beat.settled);
        let before = self.standing;
        match self.standing {
            Standing::Unable => {}
            Standing::Listening { since_ms } => {
                let all_answered = self.peers.values().all(|peer| self.is_alive(peer, now_ms));
                if !all_answered && now_ms < since_ms + self.timing.listen_ms {
                    return;
                }
                let was_missed = self.heard(now_ms).any(|beat| beat.able && beat.settled && !beat.counts_you);
                self.standing = if was_missed { self.returning(now_ms) } else { Standing::Settled };
                self.is_cut_off = false;
            }
            Standing::Returning { until_ms } => {
                if now_ms >= until_ms || !somebody_is_settled {
                    self.standing = Standing::Settled;
                }
            }
            Standing::Settled => {
                let is_silent = |peer: &Peer| {
                    !self.is_alive(peer, now_ms) && now_ms >= peer.since_ms + self.timing.dead_after_ms
                };
                if !self.peers.is_empty() && self.peers.values().all(is_silent) {
                    self.is_cut_off = true;
                } else if self.heard(now_ms).next().is_some() {
                    let was_cut_off = std::mem::take(&mut self.is_cut_off);
                    if was_cut_off && somebody_is_settled {
                        self.standing = self.returning(now_ms);
                    }
                }
            }
        }
        if self.standing != before {
            self.beat_at_ms = now_ms;
        }
    }

    fn returning(&self, now_ms: u64) -> Standing {
        Standing::Returning { until_ms: now_ms + self.timing.return_after_ms }
    }

    /// Takes what is this node's, tells of it, and lets go what is another's. The lease is renewed before a beat says that
    /// this node lives, and never later than a beat after the last one: so it ends before the others stop waiting.
    fn hold(&mut self, now_ms: u64, beats: bool, effects: &mut Vec<Effect>) {
        for (address, group) in &self.groups {
            let claim = self.claim(group, now_ms);
            match self.held.get_mut(address) {
                Some(hold) if claim == Claim::Others => {
                    hold.until_ms.get_or_insert(now_ms + self.timing.linger_ms);
                }
                // It came back before it was given up: who had it in between may have told everybody.
                Some(hold) if hold.until_ms.is_some() => {
                    *hold = Hold { telling_since_ms: now_ms, told: 0, until_ms: None };
                }
                None if claim == Claim::Ours => {
                    self.held.insert(*address, Hold { telling_since_ms: now_ms, told: 0, until_ms: None });
                    effects.push(Effect::Hold(*address));
                }
                _ => {}
            }
        }
        if beats || !effects.is_empty() {
            effects.push(Effect::Renew(self.lease_ms()));
        }
        for (address, hold) in &mut self.held {
            if !self.addresses.contains(address) {
                hold.until_ms = Some(now_ms);
            } else if !self.groups.contains_key(address) {
                hold.until_ms.get_or_insert(now_ms + self.timing.linger_ms);
            }
            if hold.until_ms.is_some() {
                continue;
            }
            // After a pause only once for all that was missed.
            let due =
                |told: usize| TELL_AFTER_MS.get(told).is_some_and(|it| now_ms >= hold.telling_since_ms + it);
            let told = (hold.told..TELL_AFTER_MS.len()).take_while(|told| due(*told)).count();
            if told > 0 {
                effects.push(Effect::Tell(*address));
                hold.told += told;
            }
        }
        self.held.retain(|address, hold| {
            let is_over = hold.until_ms.is_some_and(|until_ms| now_ms >= until_ms);
            if is_over {
                effects.push(Effect::Release(*address));
            }
            !is_over
        });
    }

    /// Whose an address is.
    fn claim(&self, group: &[NodeName], now_ms: u64) -> Claim {
        let own_is_settled = self.standing == Standing::Settled;
        let mut is_before_us = true;
        let mut claim = Claim::Ours;
        for node in group {
            if *node == self.own {
                is_before_us = false;
                continue;
            }
            let Some(peer) = self.peers.get(node) else { continue };
            match peer.heard.filter(|_| self.is_alive(peer, now_ms)) {
                Some((_, beat)) if beat.able => {
                    let is_better = match (beat.settled, own_is_settled) {
                        (true, false) => true,
                        (false, true) => false,
                        _ => is_before_us,
                    };
                    if is_better {
                        return Claim::Others;
                    }
                }
                None if is_before_us
                    && peer.heard.is_none()
                    && now_ms < peer.since_ms + self.timing.dead_after_ms =>
                {
                    claim = Claim::Unknown;
                }
                _ => {}
            }
        }
        claim
    }
}

/// Whose an address is, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Ours,
    Others,
    /// Somebody who comes before us was not heard of yet: what we hold we keep, what we do not hold we leave.
    Unknown,
}

#[cfg(test)]
mod tests;
