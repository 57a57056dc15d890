//! What the pods of this node were given of it, so that a resize is granted only when it fits beside the others, and the
//! cgroups of classes weigh what their pods do.
//!
//! Pods that are new are entered without a question: [`crate::admission`] has asked it.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::resources::Qos;

/// CPU and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

/// Why a pod does not get what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The pods of this node are not all known yet.
    TooEarly,
    /// The node cannot hold it now; it may when others shrink or go.
    Deferred(String),
    /// The node could not hold it if it were empty.
    Infeasible(String),
}

/// See the module.
pub struct Ledger {
    capacity: Amounts,
    book: Mutex<Book>,
    /// What the burstable pods were given together, in thousandths of a processor.
    burstable_cpu: watch::Sender<i64>,
}

#[derive(Default)]
struct Book {
    /// Every pod of the node has been entered once.
    complete: bool,
    given: BTreeMap<String, (Qos, Amounts)>,
    /// Pods with a deferred resize.
    waiting: BTreeSet<String>,
}

impl Ledger {
    /// For a node that can give this much.
    pub fn new(capacity: Amounts) -> Self {
        Self { capacity, book: Mutex::default(), burstable_cpu: watch::Sender::new(0) }
    }

    /// What the node can give.
    pub fn capacity(&self) -> Amounts {
        self.capacity
    }

    /// Every pod of the node has been entered.
    pub fn complete(&self) {
        self.book.lock().complete = true;
    }

    /// A pod of this class that has this much already.
    pub fn enter(&self, uid: &str, qos: Qos, given: Amounts) {
        let mut book = self.book.lock();
        book.given.entry(uid.to_string()).or_insert((qos, given));
        self.sum_up(&book);
    }

    /// What the burstable pods were given together, in thousandths of a processor, as it changes.
    pub fn burstable_cpu(&self) -> watch::Receiver<i64> {
        self.burstable_cpu.subscribe()
    }

    fn sum_up(&self, book: &Book) {
        let burstable = book.given.values().filter(|(qos, _)| *qos == Qos::Burstable);
        let sum = burstable.fold(0_i64, |sum, (_, given)| sum.saturating_add(given.cpu_milli));
        self.burstable_cpu.send_if_modified(|known| std::mem::replace(known, sum) != sum);
    }

    /// A pod that has ended. Returns whether somebody waits for room.
    pub fn leave(&self, uid: &str) -> bool {
        let mut book = self.book.lock();
        book.waiting.remove(uid);
        let was_there = book.given.remove(uid).is_some();
        self.sum_up(&book);
        was_there && !book.waiting.is_empty()
    }

    /// A pod no longer waits for room.
    pub fn withdraw(&self, uid: &str) {
        self.book.lock().waiting.remove(uid);
    }

    /// Gives a pod of this class another amount if it fits; returns whether somebody waits for room that may be there now.
    /// Less than it had always fits, however full the node is.
    ///
    /// # Errors
    /// Why it does not get it; it keeps what it had.
    pub fn exchange(&self, uid: &str, qos: Qos, wanted: Amounts) -> Result<bool, Refusal> {
        let mut book = self.book.lock();
        if !book.complete {
            return Err(Refusal::TooEarly);
        }
        let had = book.given.get(uid).map(|(_, given)| *given).unwrap_or_default();
        let others = book.given.iter().filter(|(other, _)| *other != uid);
        let taken = others.fold(Amounts::default(), |sum, (_, (_, a))| Amounts {
            cpu_milli: sum.cpu_milli.saturating_add(a.cpu_milli),
            memory_bytes: sum.memory_bytes.saturating_add(a.memory_bytes),
        });
        let resources = [
            Room {
                name: "cpu",
                unit: "m",
                had: had.cpu_milli,
                wanted: wanted.cpu_milli,
                taken: taken.cpu_milli,
                capacity: self.capacity.cpu_milli,
            },
            Room {
                name: "memory",
                unit: "",
                had: had.memory_bytes,
                wanted: wanted.memory_bytes,
                taken: taken.memory_bytes,
                capacity: self.capacity.memory_bytes,
            },
        ];
        if let Some(message) = resources.iter().find_map(Room::never) {
            book.waiting.remove(uid);
            return Err(Refusal::Infeasible(message));
        }
        if let Some(message) = resources.iter().find_map(Room::not_now) {
            book.waiting.insert(uid.to_string());
            return Err(Refusal::Deferred(message));
        }
        book.waiting.remove(uid);
        book.given.insert(uid.to_string(), (qos, wanted));
        self.sum_up(&book);
        let shrunk = wanted.cpu_milli < had.cpu_milli || wanted.memory_bytes < had.memory_bytes;
        Ok(shrunk && !book.waiting.is_empty())
    }
}

/// One resource of one question.
struct Room {
    name: &'static str,
    unit: &'static str,
    had: i64,
    wanted: i64,
    taken: i64,
    capacity: i64,
}

impl Room {
    fn grows(&self) -> bool {
        self.wanted > self.had
    }

    fn never(&self) -> Option<String> {
        let Self { name, unit, wanted, capacity, .. } = self;
        (self.grows() && wanted > capacity).then(|| {
            format!(
                "this node can never hold it: {name} {wanted}{unit} asked for, {capacity}{unit} allocatable"
            )
        })
    }

    fn not_now(&self) -> Option<String> {
        let Self { name, unit, wanted, taken, capacity, .. } = self;
        (self.grows() && wanted.saturating_add(*taken) > *capacity).then(|| {
            format!(
                "this node cannot hold it now: {name} {wanted}{unit} asked for, {taken}{unit} of {capacity}{unit} with other pods"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu_milli: i64) -> Amounts {
        Amounts { cpu_milli, memory_bytes: 0 }
    }

    fn ledger() -> Ledger {
        let ledger = Ledger::new(cpu(2000));
        ledger.enter("a", Qos::Burstable, cpu(500));
        ledger.enter("b", Qos::Burstable, cpu(1000));
        ledger.complete();
        ledger
    }

    #[test]
    fn what_fits_is_given_and_what_does_not_fit_now_waits() {
        let ledger = ledger();
        assert_eq!(ledger.exchange("a", Qos::Burstable, cpu(1000)), Ok(false));
        assert!(
            matches!(ledger.exchange("b", Qos::Burstable, cpu(1001)), Err(Refusal::Deferred(why)) if why.contains("1000m of 2000m"))
        );
        assert_eq!(ledger.exchange("a", Qos::Burstable, cpu(200)), Ok(true), "b waits for this");
        assert_eq!(ledger.exchange("b", Qos::Burstable, cpu(1001)), Ok(false));
    }

    #[test]
    fn what_the_node_can_never_hold_is_infeasible_and_waits_for_nothing() {
        let ledger = ledger();
        assert!(matches!(ledger.exchange("a", Qos::Burstable, cpu(2001)), Err(Refusal::Infeasible(_))));
        assert!(!ledger.leave("b"));
    }

    #[test]
    fn room_comes_when_a_pod_goes() {
        let ledger = ledger();
        assert!(ledger.exchange("a", Qos::Burstable, cpu(1500)).is_err());
        assert!(ledger.leave("b"), "a waits");
        assert_eq!(ledger.exchange("a", Qos::Burstable, cpu(1500)), Ok(false));
    }

    #[test]
    fn an_overfull_node_still_takes_back() {
        let ledger = ledger();
        ledger.enter("c", Qos::Burstable, cpu(4000));
        assert_eq!(ledger.exchange("c", Qos::Burstable, cpu(3000)), Ok(false));
    }

    #[test]
    fn what_burstable_pods_have_together_follows_their_coming_changing_and_going() {
        let ledger = ledger();
        let mut together = ledger.burstable_cpu();
        let mut news = || together.has_changed().unwrap().then(|| *together.borrow_and_update());
        assert_eq!(*ledger.burstable_cpu().borrow(), 1500);
        ledger.enter("guaranteed", Qos::Guaranteed, cpu(100));
        ledger.enter("a", Qos::Burstable, cpu(999));
        assert_eq!(news(), None, "another class, and one that was there");
        ledger.exchange("a", Qos::Burstable, cpu(200)).unwrap();
        assert_eq!(news(), Some(1200));
        ledger.leave("b");
        assert_eq!(news(), Some(200));
    }

    #[test]
    fn nothing_is_decided_before_every_pod_is_known() {
        let ledger = Ledger::new(cpu(2000));
        assert_eq!(ledger.exchange("a", Qos::Burstable, cpu(1)), Err(Refusal::TooEarly));
    }
}
