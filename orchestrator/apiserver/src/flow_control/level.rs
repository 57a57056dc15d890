//! A priority level at run time: its queues behind one short lock, and who waits at them.
//!
//! A request holds a [`Seat`], from the moment it is let in or queued until it is dropped, whatever the reason: that
//! gives back what it took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Flow;
use super::configuration::LevelSpec;
use super::demand::Curve;
use super::metrics::Reason;
use super::queues::{Effect, Event, Place, QueueSet, QueueView, Refusal, RequestId, Totals, Work};
use super::retry_after::RetryAfter;
use super::shares::Limits;
use crate::server::request_info::RequestInfo;

/// See the module.
pub struct Level {
    pub name: String,
    origin: Instant,
    state: Mutex<State>,
}

struct State {
    spec: LevelSpec,
    limits: Limits,
    curve: Curve,
    set: QueueSet,
    last_id: RequestId,
    requests: BTreeMap<RequestId, Entry>,
    retry_after: RetryAfter,
    counts: Counts,
    /// Reused, so that a request costs no allocation for it.
    effects: Vec<Effect>,
    /// A task waits for seats that come free by themselves.
    releasing: bool,
    /// Its object is gone; it ends when its last request does.
    quiescing: bool,
}

/// A request at the level.
struct Entry {
    flow: Arc<Flow>,
    user: String,
    info: Arc<RequestInfo>,
    work: Work,
    arrived: Duration,
    /// Since when and with how many seats it is worked on.
    started: Option<(Duration, u32)>,
    /// Told when it may start.
    waiter: Option<oneshot::Sender<()>>,
}

/// How requests fared, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub dispatched: u64,
    pub refused: u64,
    pub timed_out: u64,
    pub cancelled: u64,
}

/// What a request brings.
pub struct Arriving {
    pub flow: Arc<Flow>,
    pub hash: u64,
    pub work: Work,
    pub user: String,
    pub info: Arc<RequestInfo>,
}

/// How a request was received.
pub enum Received {
    Starts(Seat),
    /// It may start when the receiver hears.
    Waits(Seat, oneshot::Receiver<()>),
    Refused {
        why: Reason,
        retry_after_seconds: u32,
    },
}

/// A request's place at a level, in a queue or at work. Dropping it gives the place back.
pub struct Seat {
    level: Arc<Level>,
    id: RequestId,
}

/// A level as people see it.
pub struct Snapshot {
    pub name: String,
    pub totals: Totals,
    pub counts: Counts,
    pub quiescing: bool,
    pub queues: Vec<QueueView>,
    pub requests: Vec<RequestView>,
}

/// A request as people see it. Times are since the server's start.
pub struct RequestView {
    pub flow: Arc<Flow>,
    pub place: Place,
    pub user: String,
    pub info: Arc<RequestInfo>,
    pub work: Work,
    pub arrived: Duration,
    pub started: Option<Duration>,
}

// === impl Level ===

impl Level {
    /// A level without a seat yet; see [`Level::configure`].
    pub fn new(spec: LevelSpec, origin: Instant) -> Arc<Self> {
        let state = State {
            set: QueueSet::new(spec.queuing, 0, origin.elapsed()),
            spec: spec.clone(),
            limits: Limits::default(),
            curve: Curve::default(),
            last_id: 0,
            requests: BTreeMap::new(),
            retry_after: RetryAfter::default(),
            counts: Counts::default(),
            effects: Vec::new(),
            releasing: false,
            quiescing: false,
        };
        Arc::new(Self { name: spec.name, origin, state: Mutex::new(state) })
    }

    /// What its object says from now on; none when there is no object any more.
    pub fn describe(&self, spec: Option<LevelSpec>) {
        let mut state = self.state.lock();
        state.quiescing = spec.is_none();
        if let Some(spec) = spec {
            state.spec = spec;
        }
    }

    pub fn set_limits(&self, limits: Limits) {
        self.state.lock().limits = limits;
    }

    pub fn spec(&self) -> LevelSpec {
        self.state.lock().spec.clone()
    }

    pub fn limits(&self) -> Limits {
        self.state.lock().limits
    }

    pub fn is_idle(&self) -> bool {
        self.state.lock().set.is_idle()
    }

    /// What it wanted since the last call, added to what it wanted before.
    pub fn read_demand(&self) -> Curve {
        let now = self.origin.elapsed();
        let mut state = self.state.lock();
        if let Some(reading) = state.set.read_demand(now) {
            state.curve.follow(reading);
        }
        state.curve
    }

    /// Sets how many seats there are for now.
    pub fn configure(self: &Arc<Self>, seats_max: u32) {
        let mut state = self.state.lock();
        let queuing = state.spec.queuing;
        self.step(&mut state, Event::Configured { queuing, seats_max });
    }

    /// Lets a request in, queues or refuses it.
    pub fn receive(self: &Arc<Self>, arriving: Arriving) -> Received {
        let Arriving { flow, hash, work, user, info } = arriving;
        flow.metrics.estimates.observe(work.seats_max().into());
        let mut state = self.state.lock();
        let state = &mut *state;
        state.last_id += 1;
        let id = state.last_id;
        let arrived = self.origin.elapsed();
        let entry = Entry { flow, user, info, work, arrived, started: None, waiter: None };
        state.requests.insert(id, entry);
        self.step(state, Event::Arrives { id, hash, work });
        match state.requests.get_mut(&id) {
            Some(entry) if entry.started.is_some() => Received::Starts(Seat { level: self.clone(), id }),
            Some(entry) => {
                let (waiter, hears) = oneshot::channel();
                entry.waiter = Some(waiter);
                Received::Waits(Seat { level: self.clone(), id }, hears)
            }
            None => {
                let why = match state.effects.iter().find(|effect| matches!(effect, Effect::Refused { .. })) {
                    Some(Effect::Refused { why: Refusal::ConcurrencyLimit, .. }) => Reason::ConcurrencyLimit,
                    _ => Reason::QueueFull,
                };
                let retry_after_seconds = state.retry_after.refuse(arrived.as_secs());
                Received::Refused { why, retry_after_seconds }
            }
        }
    }

    /// Takes an event and does what follows. The effects can be read until the next one.
    fn step(self: &Arc<Self>, state: &mut State, event: Event) {
        let now = self.origin.elapsed();
        state.effects.clear();
        state.set.step(now, event, &mut state.effects);
        for effect in &state.effects {
            match *effect {
                Effect::Started { id, seats } => {
                    let Some(entry) = state.requests.get_mut(&id) else { continue };
                    let metrics = &entry.flow.metrics;
                    if let Some(waiter) = entry.waiter.take() {
                        metrics.waiting.dec();
                        metrics.waiting_seats.dec_by(entry.work.seats_max().into());
                        // Whoever does not hear any more drops the seat.
                        let _ = waiter.send(());
                    }
                    metrics.dispatched.inc();
                    metrics.executing.inc();
                    metrics.executing_seats.inc_by(seats.into());
                    metrics.waits_of_executed.observe(now.saturating_sub(entry.arrived).as_secs_f64());
                    entry.started = Some((now, seats));
                    state.counts.dispatched += 1;
                }
                Effect::Waits { id, queue_length } => {
                    let Some(entry) = state.requests.get(&id) else { continue };
                    let metrics = &entry.flow.metrics;
                    metrics.waiting.inc();
                    metrics.waiting_seats.inc_by(entry.work.seats_max().into());
                    metrics.lengths.observe(queue_length as f64);
                }
                Effect::Refused { id, why } => {
                    let Some(entry) = state.requests.remove(&id) else { continue };
                    let reason = match why {
                        Refusal::ConcurrencyLimit => Reason::ConcurrencyLimit,
                        Refusal::QueueFull => Reason::QueueFull,
                    };
                    entry.flow.metrics.refuse(reason);
                    entry.flow.metrics.waits_of_refused.observe(0.0);
                    state.counts.refused += 1;
                }
            }
        }
        let waits = state.set.totals().waiting > 0;
        if let (true, false, Some(at)) = (waits, state.releasing, state.set.next_release()) {
            // Without a runtime there is nobody who waits either.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                state.releasing = true;
                runtime.spawn(self.clone().release_from(at));
            }
        }
    }

    /// Lets those who wait have the seats that come free by themselves.
    async fn release_from(self: Arc<Self>, mut at: Duration) {
        loop {
            tokio::time::sleep_until(self.origin + at).await;
            let mut state = self.state.lock();
            self.step(&mut state, Event::Passes);
            match state.set.next_release().filter(|_| state.set.totals().waiting > 0) {
                Some(next) => at = next,
                None => {
                    state.releasing = false;
                    return;
                }
            }
        }
    }

    fn leave(self: &Arc<Self>, id: RequestId, unheard: Option<Reason>) -> Option<u32> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let entry = state.requests.remove(&id)?;
        let now = self.origin.elapsed();
        let metrics = &entry.flow.metrics;
        let mut retry_after_seconds = None;
        match entry.started {
            Some((since, seats)) => {
                metrics.executing.dec();
                metrics.executing_seats.dec_by(seats.into());
                let takes = match entry.info.verb == "watch" {
                    true => &metrics.takes_of_watches,
                    false => &metrics.takes,
                };
                takes.observe(now.saturating_sub(since).as_secs_f64());
            }
            None => {
                let reason = unheard.unwrap_or(Reason::Cancelled);
                metrics.waiting.dec();
                metrics.waiting_seats.dec_by(entry.work.seats_max().into());
                metrics.refuse(reason);
                metrics.waits_of_refused.observe(now.saturating_sub(entry.arrived).as_secs_f64());
                state.counts.refused += 1;
                match reason {
                    Reason::TimeOut => state.counts.timed_out += 1,
                    _ => state.counts.cancelled += 1,
                }
                retry_after_seconds = Some(state.retry_after.refuse(now.as_secs()));
            }
        }
        self.step(state, Event::Leaves { id });
        retry_after_seconds
    }

    /// Everything at the level, with its requests if wanted.
    pub fn snapshot(&self, requests: bool) -> Snapshot {
        let state = self.state.lock();
        let places = if requests { state.set.places() } else { Vec::new() };
        let view = |(id, place): (RequestId, Place)| {
            let entry = state.requests.get(&id)?;
            Some(RequestView {
                flow: entry.flow.clone(),
                place,
                user: entry.user.clone(),
                info: entry.info.clone(),
                work: entry.work,
                arrived: entry.arrived,
                started: entry.started.map(|(since, _)| since),
            })
        };
        Snapshot {
            name: self.name.clone(),
            totals: state.set.totals(),
            counts: state.counts,
            quiescing: state.quiescing,
            queues: state.set.views(),
            requests: places.into_iter().filter_map(view).collect(),
        }
    }
}

// === impl Seat ===

impl Seat {
    /// Gives up waiting at the deadline; how long the client should wait before it comes again. `None` if it was let
    /// in just then: the seat is given back all the same.
    pub fn time_out(self) -> Option<u32> {
        self.level.leave(self.id, Some(Reason::TimeOut))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.level.leave(self.id, None);
    }
}
