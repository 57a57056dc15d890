//! The loop: beats in, beats and frames out, and who answers is told what for.
//!
//! To be run in a thread of its own: a beat that comes late because something else was busy is an address that moves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::NodeName;
use crate::election::{Effect, Election, Timing};
use crate::frames::{Mac, takeover_frames};
use crate::groups::Wanted;
use crate::sockets::{AnnounceError, BeatSocket, FrameSocket, Groups};

/// Beats read before a step is taken: no flood of them keeps this node from beating.
const BEATS_AT_ONCE: usize = 256;
/// Pause after reading failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Answers questions for addresses, while its lease lasts.
pub trait Answerer {
    /// Why it cannot.
    type Error: std::fmt::Display;

    /// Answers for an address by an interface, with its link address.
    fn put(&mut self, address: IpAddr, ifindex: u32, mac: Mac) -> Result<(), Self::Error>;
    /// Does so no more.
    fn remove(&mut self, address: IpAddr) -> Result<(), Self::Error>;
    /// Lets the lease last this long from now.
    fn renew(&mut self, lease: Duration) -> Result<(), Self::Error>;
    /// What it answers for, also from before this process.
    fn list(&self) -> Result<Vec<IpAddr>, Self::Error>;
}

/// Who announces, and where.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// This node.
    pub node: NodeName,
    /// Where its beats come from.
    pub node_ip: IpAddr,
    /// The port of beats, the same on all nodes.
    pub port: u16,
    /// The interface by which addresses are announced.
    pub ifindex: u32,
    /// How long things take.
    pub timing: Timing,
}

/// What this node holds, and since when.
pub type Held = BTreeMap<IpAddr, SystemTime>;

/// Announces until `shutdown`, then lets others take over. What is wanted is nothing until this node can serve it.
pub async fn run(
    announcer: Announcer,
    answerer: impl Answerer,
    mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
    held: watch::Sender<Held>,
    shutdown: CancellationToken,
) -> Result<(), AnnounceError> {
    let socket = BeatSocket::open(announcer.node_ip, announcer.port)?;
    let frames = FrameSocket::open(announcer.ifindex)?;
    let mac = frames.mac();
    let start = Instant::now();
    let now_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut election = Election::new(announcer.node.clone(), announcer.timing, now_ms());
    let groups = Groups::new(announcer.ifindex);
    let mut hands =
        Hands { answerer, socket: &socket, frames, groups, ifindex: announcer.ifindex, mac, is_clean: false };
    loop {
        let due = start + Duration::from_millis(election.due_ms(now_ms()));
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = wanted.changed() => {
                if changed.is_err() {
                    break;
                }
                if let Some(wanted) = &*wanted.borrow_and_update() {
                    election.want(wanted, now_ms());
                }
            }
            received = socket.receive() => match received {
                Ok((from, beat)) => {
                    hands.apply(election.hear(from, beat, now_ms()));
                    for _ in 0..BEATS_AT_ONCE {
                        let Some((from, beat)) = socket.receive_now() else { break };
                        hands.apply(election.hear(from, beat, now_ms()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "reading beats of other nodes failed");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            },
            () = tokio::time::sleep_until(due) => {}
        }
        hands.apply(election.step(now_ms()));
        publish(&held, election.held().collect());
    }
    hands.apply(election.leave());
    Ok(())
}

/// Whatever acts on the world.
struct Hands<'a, A> {
    answerer: A,
    socket: &'a BeatSocket,
    frames: FrameSocket,
    groups: Groups,
    ifindex: u32,
    mac: Mac,
    /// Whether what an earlier agent answered for is gone.
    is_clean: bool,
}

// === impl Hands ===

impl<A: Answerer> Hands<'_, A> {
    fn apply(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Hold(address) => {
                    self.clean();
                    if let Err(error) = self.groups.join(address) {
                        tracing::warn!(%address, %error, "questions for it may not arrive: its group was not joined");
                    }
                    told(address, "is announced", self.answerer.put(address, self.ifindex, self.mac));
                }
                Effect::Release(address) => {
                    self.groups.leave(address);
                    told(address, "is announced no more", self.answerer.remove(address));
                }
                Effect::Renew(for_ms) => {
                    self.clean();
                    if let Err(error) = self.answerer.renew(Duration::from_millis(for_ms)) {
                        tracing::error!("nothing is announced: {error}");
                    }
                }
                Effect::Tell(address) => {
                    for frame in takeover_frames(address, self.mac) {
                        if let Err(error) = self.frames.send(&frame) {
                            tracing::debug!(%address, %error, "the link was not told");
                        }
                    }
                }
                Effect::Send(to, beat) => self.socket.send(to, beat),
            }
        }
    }

    /// Before anything is answered for under a lease of ours, what an earlier agent left goes.
    fn clean(&mut self) {
        if std::mem::replace(&mut self.is_clean, true) {
            return;
        }
        match self.answerer.list() {
            Ok(left) => left.into_iter().for_each(|address| drop(self.answerer.remove(address))),
            Err(error) => tracing::error!("what an earlier agent announced cannot be read: {error}"),
        }
    }
}

fn told(address: IpAddr, what: &str, outcome: Result<(), impl std::fmt::Display>) {
    match outcome {
        Ok(()) => tracing::info!("load-balancer address {address} {what} by this node"),
        Err(error) => tracing::error!(%address, "the programs were not told that it {what}: {error}"),
    }
}

/// Says what is held; since when stays as it is.
fn publish(held: &watch::Sender<Held>, now: BTreeSet<IpAddr>) {
    held.send_if_modified(|held| {
        let before = held.len();
        held.retain(|address, _| now.contains(address));
        let mut differs = held.len() != before;
        for address in now {
            held.entry(address).or_insert_with(|| {
                differs = true;
                SystemTime::now()
            });
        }
        differs
    });
}
