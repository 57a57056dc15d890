//! API priority and fairness: who is worked on when more is asked than the server can do at once.
//!
//! A FlowSchema says which priority level a request belongs to and which flow of it ([`classify`]); levels share the
//! server's seats ([`shares`]) and move them by demand ([`demand`]); within a level flows wait in fair queues
//! ([`queues`], dealt by [`dealer`]). All of that is pure. [`level`] puts queues behind a lock and wakes those who
//! wait, [`follow`] keeps everything as the stored objects say. Must not know HTTP: the server asks [`FlowControl::admit`]
//! and writes what comes of it.

mod classify;
mod configuration;
mod dealer;
mod demand;
pub(crate) mod dump;
mod estimate;
pub(crate) mod follow;
mod level;
mod metrics;
mod queues;
mod retry_after;
mod shares;

pub(crate) use dealer::{ENTROPY_BITS_MAX, entropy_bits};
pub(crate) use level::Seat;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::registry::Registry as Exposition;
use tokio::time::Instant;

use crate::registry::{Registry, User};
use crate::server::query::Query;
use crate::server::request_info::RequestInfo;
use classify::{FlowSchema, flow_hash};
use configuration::Plan;
use level::{Arriving, Level, Received};
use metrics::{FlowMetrics, Metrics};
use queues::{Queuing, Work};
use shares::Claim;

/// Shares the server's seats. See the module.
pub struct FlowControl {
    registry: Arc<Registry>,
    /// How many ordinary requests are worked on at once.
    seats: u32,
    origin: Instant,
    metrics: Metrics,
    current: ArcSwap<Current>,
    /// Held while the configuration changes.
    changing: Mutex<()>,
}

/// What requests are measured by at one moment. Never changed, only replaced.
#[derive(Default)]
struct Current {
    /// In the order they are asked.
    flows: Vec<Arc<Flow>>,
    /// With those that are gone but not idle.
    levels: BTreeMap<String, Arc<Level>>,
}

/// A schema and where it leads.
pub struct Flow {
    schema: FlowSchema,
    level: Arc<Level>,
    level_uid: String,
    queuing: Queuing,
    /// The widest request of the level.
    seats_max: u32,
    metrics: FlowMetrics,
}

/// What a request fell under: for its response's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    pub schema_uid: String,
    pub level_uid: String,
}

/// The request is not worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after_seconds: u32,
}

/// Who asks for what.
pub struct Asking<'r> {
    pub user: &'r User,
    pub info: &'r Arc<RequestInfo>,
    pub query: &'r Query,
}

// === impl FlowControl ===

impl FlowControl {
    /// With the mandatory configuration alone; see [`follow`].
    pub fn new(registry: Arc<Registry>, seats: u32) -> Self {
        let control = Self {
            registry,
            seats,
            origin: Instant::now(),
            metrics: Metrics::default(),
            current: ArcSwap::default(),
            changing: Mutex::default(),
        };
        control.adopt(&Plan::of(&[], &[]));
        control
    }

    /// Adds its numbers to an exposition.
    pub fn register(&self, exposition: &mut Exposition) {
        self.metrics.register(exposition);
    }

    /// Waits until a request may be worked on, at most until `until`. What it fell under is told before that.
    /// Dropping the seat ends the work.
    pub async fn admit(
        &self,
        asking: Asking<'_>,
        until: Instant,
        classified: &mut Option<Classified>,
    ) -> Result<Seat, TooMany> {
        let Asking { user, info, query } = asking;
        let (flow, received) = {
            let current = self.current.load();
            // The last one takes everything.
            let found = current.flows.iter().find(|flow| flow.schema.matches(user, info));
            let Some(flow) = found.or(current.flows.last()).cloned() else {
                return Err(TooMany { retry_after_seconds: 1 });
            };
            let hash = match flow.queuing {
                Queuing::Queue { queues, .. } if queues > 1 => {
                    flow_hash(&flow.schema.name, flow.schema.flow(user, info))
                }
                _ => 0,
            };
            let work = match flow.queuing {
                Queuing::Exempt => Work::ORDINARY,
                _ => self.estimate(info, query, flow.seats_max),
            };
            let arriving =
                Arriving { flow: flow.clone(), hash, work, user: user.name.clone(), info: info.clone() };
            // Under the same configuration, so that a level which is to go is seen to be used.
            (flow.clone(), flow.level.receive(arriving))
        };
        *classified =
            Some(Classified { schema_uid: flow.schema.uid.clone(), level_uid: flow.level_uid.clone() });
        match received {
            Received::Starts(seat) => Ok(seat),
            Received::Waits(seat, hears) => match tokio::time::timeout_at(until, hears).await {
                Ok(Ok(())) => Ok(seat),
                _ => {
                    let retry_after_seconds = seat.time_out().unwrap_or(1);
                    tracing::debug!(
                        level = flow.level.name,
                        schema = flow.schema.name,
                        "a request waited too long"
                    );
                    Err(TooMany { retry_after_seconds })
                }
            },
            Received::Refused { why, retry_after_seconds } => {
                let (level, schema) = (&flow.level.name, &flow.schema.name);
                tracing::debug!(level, schema, why = why.text(), "a request was refused");
                Err(TooMany { retry_after_seconds })
            }
        }
    }

    /// What a request is worth, from what is stored and who watches.
    fn estimate(&self, info: &RequestInfo, query: &Query, seats_max: u32) -> Work {
        if !info.is_resource {
            return Work::ORDINARY;
        }
        let begins = |version: Option<&str>| matches!(version, None | Some("" | "0"));
        let lists = match info.verb.as_str() {
            "list" => info.name.is_empty(),
            "watch" => {
                info.name.is_empty()
                    && (query.flag("sendInitialEvents") || begins(query.get("resourceVersion")))
            }
            _ => false,
        };
        let writes = matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete");
        if !lists && !writes {
            return Work::ORDINARY;
        }
        let Some(definition) = self.registry.find(&info.group, &info.version, &info.resource) else {
            return Work::ORDINARY;
        };
        if lists {
            let enough = estimate::OBJECTS_PER_SEAT * estimate::SEATS_MAX as usize;
            return estimate::list(self.registry.count(&definition, &info.namespace, enough), seats_max);
        }
        match info.resource == "serviceaccounts" && info.subresource == "token" {
            true => Work::ORDINARY,
            false => estimate::write(self.registry.watchers(&definition), seats_max),
        }
    }

    /// Works by this configuration from now on. Requests that are here stay where they are.
    fn adopt(&self, plan: &Plan) {
        let _changing = self.changing.lock();
        let before = self.current.load_full();
        let mut levels = BTreeMap::new();
        for (name, spec) in &plan.levels {
            let level = match before.levels.get(name) {
                Some(level) => {
                    level.describe(Some(spec.clone()));
                    level.clone()
                }
                None => Level::new(spec.clone(), self.origin),
            };
            levels.insert(name.clone(), level);
        }
        let mut gone = Vec::new();
        for (name, level) in &before.levels {
            if levels.contains_key(name) {
                continue;
            }
            level.describe(None);
            if level.is_idle() {
                gone.push(name.clone());
            } else {
                levels.insert(name.clone(), level.clone());
            }
        }
        let shares: Vec<_> = levels.values().map(|level| level.spec().shares).collect();
        for (level, limits) in levels.values().zip(shares::limits(self.seats, &shares)) {
            level.set_limits(limits);
            self.metrics.set_limits(&level.name, limits);
        }
        let flow = |schema: &FlowSchema| {
            let level = levels.get(&schema.level)?;
            let spec = level.spec();
            let known = before.flows.iter().find(|flow| {
                flow.schema == *schema && flow.level_uid == spec.uid && Arc::ptr_eq(&flow.level, level)
            });
            let hand = match spec.queuing {
                Queuing::Queue { hand, .. } => Some(hand),
                _ => None,
            };
            let seats_max = estimate::seats_max(level.limits().nominal, hand);
            if let Some(known) = known.filter(|f| f.queuing == spec.queuing && f.seats_max == seats_max) {
                return Some(known.clone());
            }
            Some(Arc::new(Flow {
                schema: schema.clone(),
                level: level.clone(),
                level_uid: spec.uid,
                queuing: spec.queuing,
                seats_max,
                metrics: self.metrics.flow(&schema.level, &schema.name),
            }))
        };
        let flows: Vec<Arc<Flow>> = plan.schemas.iter().filter_map(flow).collect();
        for old in &before.flows {
            let is_same =
                |new: &Arc<Flow>| new.schema.name == old.schema.name && new.schema.level == old.schema.level;
            if !flows.iter().any(is_same) {
                self.metrics.forget_flow(&old.metrics);
            }
        }
        self.adjust(&levels);
        self.current.store(Arc::new(Current { flows, levels }));
        for name in gone {
            self.metrics.forget_level(&name);
        }
    }

    /// Moves seats to where they are wanted.
    fn rebalance(&self) {
        let _changing = self.changing.lock();
        self.adjust(&self.current.load().levels);
    }

    /// Whether a level is only kept until its last request is done.
    fn has_levels_to_drop(&self) -> bool {
        let current = self.current.load();
        current.levels.values().any(|level| {
            let snapshot = level.snapshot(false);
            snapshot.quiescing && level.is_idle()
        })
    }

    fn adjust(&self, levels: &BTreeMap<String, Arc<Level>>) {
        let mut seats: u32 = levels.values().map(|level| level.limits().nominal).sum();
        let mut limited = Vec::new();
        let mut claims = Vec::new();
        for level in levels.values() {
            let (limits, curve) = (level.limits(), level.read_demand());
            if level.spec().queuing == Queuing::Exempt {
                // It takes what it wants, so that what is left is for the others.
                let taken = limits.lower.max(curve.last.peak);
                seats = seats.saturating_sub(taken);
                level.configure(taken);
                let target = f64::from(taken);
                self.metrics.set_adjusted(&level.name, curve.last, curve.smoothed, target, taken);
                continue;
            }
            let floor = limits.lower.max(limits.nominal.min(curve.last.peak));
            let target = curve.smoothed.max(f64::from(floor));
            claims.push(Claim { lower: limits.lower, floor, upper: limits.upper, target });
            limited.push((level, curve));
        }
        let allotment = shares::allot(seats, &claims);
        self.metrics.set_fair_fraction(allotment.fair_fraction);
        for (((level, curve), claim), seats) in limited.into_iter().zip(&claims).zip(allotment.seats) {
            level.configure(seats);
            self.metrics.set_adjusted(&level.name, curve.last, curve.smoothed, claim.target, seats);
        }
    }
}
