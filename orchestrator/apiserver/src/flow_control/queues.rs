//! The queues of one priority level, as a state machine: events in, effects out, no clock and no waiting of its own.
//!
//! Fair queuing for requests whose length nobody knows beforehand. Each queue with anything to do is entitled to an
//! equal part of the level's seats; `progress` says how many seat-nanoseconds one that always had work would have got
//! so far, and a queue's `next` how many it has got. The queue whose first request would be done earliest by that
//! reckoning is served next. A request is charged with an estimate when it starts, and with what it took when it
//! leaves (<https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/1040-priority-and-fairness>).
//!
//! Only queues with something to do exist, so that neither memory nor time depends on how many there may be.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::dealer;
use super::demand::{Demand, Reading};

/// Names a request. A caller gives out ascending ones: they are the order of a queue.
pub type RequestId = u64;

/// What a level does with requests it has no seats for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queuing {
    /// There is no such request: all start at once.
    Exempt,
    Reject,
    Queue {
        queues: u32,
        hand: u32,
        /// Requests that may wait in one queue.
        length_max: u32,
    },
}

/// What a request takes: `seats` while it is worked on, and `lingering_seats` for `lingering` after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// At least 1.
    pub seats: u32,
    pub lingering_seats: u32,
    pub lingering: Duration,
}

/// What happens to a level.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    Arrives {
        id: RequestId,
        /// Of the flow it belongs to.
        hash: u64,
        work: Work,
    },
    /// It is done, has waited long enough, or its client is gone. Nothing happens if it is not here.
    Leaves {
        id: RequestId,
    },
    Configured {
        queuing: Queuing,
        seats_max: u32,
    },
    /// Nothing but time.
    Passes,
}

/// What follows from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Started { id: RequestId, seats: u32 },
    Waits { id: RequestId, queue_length: usize },
    Refused { id: RequestId, why: Refusal },
}

/// Why a request was turned away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no seat, and the level has no queues.
    ConcurrencyLimit,
    QueueFull,
}

/// How much of everything there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub waiting: usize,
    pub executing: usize,
    /// With those of requests that are done and linger.
    pub seats_in_use: u32,
    pub seats_waiting: u32,
}

/// A queue as it is shown to people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueView {
    pub index: u32,
    pub waiting: usize,
    pub executing: usize,
    pub seats_in_use: u32,
    /// Seat-seconds.
    pub next: f64,
    pub seats_waiting: u32,
    /// Seat-seconds.
    pub work_waiting: f64,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `None` at levels without queues.
    pub queue: Option<u32>,
    /// Its place in the queue, or none when it is worked on.
    pub waiting_at: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct QueueSet {
    queuing: Queuing,
    seats_max: u32,
    now: Duration,
    progress: Progress,
    /// Those with something to do.
    queues: BTreeMap<u32, Queue>,
    /// The last queue served: of equals, the one after it comes first.
    served: u32,
    /// Moves the place in the hand that is looked at first.
    arrivals: u64,
    requests: BTreeMap<RequestId, Request>,
    /// Seats of requests that are done, by when they are free.
    lingering: BTreeMap<(Duration, RequestId), u32>,
    totals: Totals,
    demand: Demand,
}

/// Seat-nanoseconds, in 65,536ths. Wide enough never to run over.
type Progress = i128;

const FRACTIONS: Progress = 1 << 16;
/// What a request is charged for each of its seats before it is known how long it takes (upstream's estimate).
const SERVICE_ESTIMATE: Duration = Duration::from_millis(3);

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<RequestId, Waiting>,
    work_waiting: Progress,
    seats_waiting: u32,
    executing: Vec<Executing>,
    seats_in_use: u32,
    /// What it has got: requests that are done as they took, those that are worked on as estimated.
    next: Progress,
}

/// What is asked of a waiting request each time its queue is looked at.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    work: Progress,
    arrived_at: Progress,
}

#[derive(Debug, Clone, Copy)]
struct Executing {
    id: RequestId,
    since: Duration,
    seats: u32,
}

#[derive(Debug)]
struct Request {
    work: Work,
    queue: Option<u32>,
    /// Since when and with how many seats it is worked on.
    started: Option<(Duration, u32)>,
}

// === impl Work ===

impl Work {
    /// One seat, for as long as it takes.
    pub const ORDINARY: Self = Self { seats: 1, lingering_seats: 0, lingering: Duration::ZERO };

    /// What must be free for it to start.
    pub fn seats_max(&self) -> u32 {
        self.seats.max(self.lingering_seats).max(1)
    }

    fn total(&self) -> Progress {
        seat_time(self.seats, SERVICE_ESTIMATE) + seat_time(self.lingering_seats, self.lingering)
    }
}

// === impl Queue ===

impl Queue {
    /// What it has got by now. Upstream charges a request's real time when it ends; here also what one that is worked on
    /// took beyond the estimate, or a flow of requests that hang would come first until they end.
    fn got(&self, now: Duration) -> Progress {
        let beyond = |executing: &Executing| {
            let took = now.saturating_sub(executing.since);
            seat_time(executing.seats, took.saturating_sub(SERVICE_ESTIMATE))
        };
        self.next + self.executing.iter().map(beyond).sum::<Progress>()
    }
}

// === impl QueueSet ===

impl QueueSet {
    /// An idle level at the time `now`, in whatever clock later events are told in.
    pub fn new(queuing: Queuing, seats_max: u32, now: Duration) -> Self {
        Self {
            queuing,
            seats_max,
            now,
            progress: 0,
            queues: BTreeMap::new(),
            served: 0,
            arrivals: 0,
            requests: BTreeMap::new(),
            lingering: BTreeMap::new(),
            totals: Totals::default(),
            demand: Demand::default(),
        }
    }

    /// Takes one event at a time not before that of the last, and adds what follows from it.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        self.advance(now);
        match event {
            Event::Arrives { id, hash, work } => self.arrive(id, hash, work, effects),
            Event::Leaves { id } => self.leave(id),
            Event::Configured { queuing, seats_max } => {
                (self.queuing, self.seats_max) = (queuing, seats_max);
            }
            Event::Passes => {}
        }
        self.dispatch(effects);
        self.demand.became(self.wanted());
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Nothing waits and nothing is worked on.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// When the next seats come free by themselves: whoever waits for that sends [`Event::Passes`].
    pub fn next_release(&self) -> Option<Duration> {
        self.lingering.keys().next().map(|(at, _)| *at)
    }

    /// What the level could have used since the last call.
    pub fn read_demand(&mut self, now: Duration) -> Option<Reading> {
        self.advance(now);
        let wanted = self.wanted();
        self.demand.read(wanted)
    }

    /// Queues with something to do, by number.
    pub fn views(&self) -> Vec<QueueView> {
        let view = |(index, queue): (&u32, &Queue)| QueueView {
            index: *index,
            waiting: queue.waiting.len(),
            executing: queue.executing.len(),
            seats_in_use: queue.seats_in_use,
            next: seconds(queue.next),
            seats_waiting: queue.seats_waiting,
            work_waiting: seconds(queue.work_waiting),
        };
        self.queues.iter().map(view).collect()
    }

    /// Where each request is.
    pub fn places(&self) -> Vec<(RequestId, Place)> {
        let place = |(id, request): (&RequestId, &Request)| {
            let queue = request.queue.and_then(|index| self.queues.get(&index));
            let waiting_at = queue.and_then(|queue| queue.waiting.keys().position(|other| other == id));
            (*id, Place { queue: request.queue, waiting_at })
        };
        self.requests.iter().map(place).collect()
    }

    fn wanted(&self) -> u32 {
        self.totals.seats_in_use.saturating_add(self.totals.seats_waiting)
    }

    /// Lets time pass, stopping wherever seats come free.
    fn advance(&mut self, now: Duration) {
        while let Some((at, id)) = self.lingering.keys().next().copied().filter(|(at, _)| *at <= now) {
            self.pass(at);
            if let Some(seats) = self.lingering.remove(&(at, id)) {
                self.totals.seats_in_use -= seats;
            }
        }
        self.pass(now);
    }

    fn pass(&mut self, until: Duration) {
        let time = until.saturating_sub(self.now);
        if time.is_zero() {
            return;
        }
        self.now = until;
        self.demand.lasted(self.wanted(), time);
        if !self.queues.is_empty() {
            let used = self.wanted().min(self.seats_max);
            self.progress += seat_time(used, time) / self.queues.len() as Progress;
        }
    }

    fn arrive(&mut self, id: RequestId, hash: u64, work: Work, effects: &mut Vec<Effect>) {
        let mut request = Request { work, queue: None, started: None };
        let fits = self.totals.waiting == 0 && self.seats_for(&work).is_some();
        let (queues, hand, length_max) = match self.queuing {
            Queuing::Queue { queues, hand, length_max } => (queues, hand, length_max),
            Queuing::Reject if !fits => {
                effects.push(Effect::Refused { id, why: Refusal::ConcurrencyLimit });
                return;
            }
            Queuing::Reject | Queuing::Exempt => {
                self.requests.insert(id, request);
                self.start(id, effects);
                return;
            }
        };
        let index = self.choose(hash, queues, hand);
        let length = self.queues.get(&index).map_or(0, |queue| queue.waiting.len());
        if !fits && length >= length_max as usize {
            effects.push(Effect::Refused { id, why: Refusal::QueueFull });
            return;
        }
        request.queue = Some(index);
        let progress = self.progress;
        let queue = self.queues.entry(index).or_insert_with(|| Queue { next: progress, ..Queue::default() });
        self.requests.insert(id, request);
        if fits {
            self.served = index;
            self.start(id, effects);
            return;
        }
        queue.waiting.insert(id, Waiting { work: work.total(), arrived_at: progress });
        queue.work_waiting += work.total();
        queue.seats_waiting += work.seats_max();
        let queue_length = queue.waiting.len();
        self.totals.waiting += 1;
        self.totals.seats_waiting += work.seats_max();
        self.bound(index);
        effects.push(Effect::Waits { id, queue_length });
    }

    /// Of the flow's hand, the queue with least to do.
    fn choose(&mut self, hash: u64, queues: u32, hand: u32) -> u32 {
        let dealt = dealer::deal(hash, queues, hand);
        let cards = dealt.cards();
        // Flows whose hands overlap must not all prefer the same card.
        let first = (self.arrivals % cards.len() as u64) as usize;
        self.arrivals = self.arrivals.wrapping_add(1);
        let turned = cards[first..].iter().chain(&cards[..first]).copied();
        let waiting = |index: &u32| self.queues.get(index).map_or(0, |queue| queue.work_waiting);
        turned.min_by_key(waiting).unwrap_or_default()
    }

    /// Starts what there are seats for, in order of fairness.
    fn dispatch(&mut self, effects: &mut Vec<Effect>) {
        while self.totals.waiting > 0 {
            let Some((index, id)) = self.next_in_turn() else { return };
            let Some(request) = self.requests.get(&id) else { return };
            // A wide request that is next keeps its turn until there is room for it: nobody overtakes it.
            if self.seats_for(&request.work).is_none() {
                return;
            }
            self.served = index;
            self.take_out(index, id);
            self.start(id, effects);
        }
    }

    /// The queue to be served next and its first request.
    fn next_in_turn(&self) -> Option<(u32, RequestId)> {
        let after = self.queues.range((Bound::Excluded(self.served), Bound::Unbounded));
        let turned = after.chain(self.queues.range(..=self.served));
        let mut best: Option<(Progress, u32, RequestId)> = None;
        for (index, queue) in turned {
            let Some((first, waiting)) = queue.waiting.first_key_value() else { continue };
            let done_at = queue.got(self.now) + waiting.work;
            if best.is_none_or(|(earliest, ..)| done_at < earliest) {
                best = Some((done_at, *index, *first));
            }
        }
        best.map(|(_, index, id)| (index, id))
    }

    /// How many seats a request would be given now; none if there is no room. What wants more than there are gets all.
    fn seats_for(&self, work: &Work) -> Option<u32> {
        let wanted = work.seats_max();
        if self.queuing == Queuing::Exempt {
            return Some(wanted);
        }
        let seats = wanted.min(self.seats_max);
        (seats > 0 && self.totals.seats_in_use + seats <= self.seats_max).then_some(seats)
    }

    fn start(&mut self, id: RequestId, effects: &mut Vec<Effect>) {
        let Some(work) = self.requests.get(&id).map(|request| request.work) else { return };
        let seats = self.seats_for(&work).unwrap_or(work.seats_max());
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.started = Some((self.now, seats));
        self.totals.executing += 1;
        self.totals.seats_in_use += seats;
        if let Some(index) = request.queue
            && let Some(queue) = self.queues.get_mut(&index)
        {
            queue.executing.push(Executing { id, since: self.now, seats: work.seats });
            queue.seats_in_use += seats;
            queue.next += work.total();
            self.bound(index);
        }
        effects.push(Effect::Started { id, seats });
    }

    fn leave(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        let (work, queue, started) = (request.work, request.queue, request.started);
        match (started, queue) {
            (None, Some(index)) => {
                self.take_out(index, id);
                self.requests.remove(&id);
                self.bound(index);
            }
            (None, None) => {
                self.requests.remove(&id);
            }
            (Some((since, seats)), _) => {
                self.requests.remove(&id);
                self.totals.executing -= 1;
                let lingering = work.lingering_seats.min(seats);
                if !work.lingering.is_zero() && lingering > 0 {
                    self.lingering.insert((self.now + work.lingering, id), lingering);
                    self.totals.seats_in_use -= seats - lingering;
                } else {
                    self.totals.seats_in_use -= seats;
                }
                if let Some(index) = queue
                    && let Some(queue) = self.queues.get_mut(&index)
                {
                    queue.executing.retain(|executing| executing.id != id);
                    queue.seats_in_use -= seats;
                    let took = self.now.saturating_sub(since);
                    queue.next += seat_time(work.seats, took) - seat_time(work.seats, SERVICE_ESTIMATE);
                    self.bound(index);
                }
            }
        }
        if let Some(index) = queue
            && self
                .queues
                .get(&index)
                .is_some_and(|queue| queue.executing.is_empty() && queue.waiting.is_empty())
        {
            self.queues.remove(&index);
        }
    }

    /// Takes a waiting request out of its queue.
    fn take_out(&mut self, index: u32, id: RequestId) {
        let Some(work) = self.requests.get(&id).map(|request| request.work) else { return };
        let Some(queue) = self.queues.get_mut(&index) else { return };
        if queue.waiting.remove(&id).is_some() {
            queue.work_waiting -= work.total();
            queue.seats_waiting -= work.seats_max();
            self.totals.waiting -= 1;
            self.totals.seats_waiting -= work.seats_max();
        }
    }

    /// A queue that could not use its part does not save it up: nothing is served before it arrived.
    fn bound(&mut self, index: u32) {
        let now = self.now;
        let Some(queue) = self.queues.get_mut(&index) else { return };
        if let Some((_, first)) = queue.waiting.first_key_value() {
            let lag = first.arrived_at - queue.got(now);
            queue.next += lag.max(0);
        }
    }
}

fn seat_time(seats: u32, time: Duration) -> Progress {
    Progress::from(seats) * time.as_nanos() as Progress * FRACTIONS
}

fn seconds(progress: Progress) -> f64 {
    progress as f64 / FRACTIONS as f64 / 1e9
}
