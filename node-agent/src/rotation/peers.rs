//! The other nodes' data planes: waits until all have what is asked for.
//!
//! Askers that come together are asked for together: one round at a time, for the newest version that anybody waits
//! for, and what a node once said is not asked again. It must not know how a question travels.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use penstock_pods::{Answer, Question};

use super::groups::{Group, plan_groups};
use super::nodes::Nodes;

/// How long a node that is behind keeps a question before it says so.
pub const WITHIN: Duration = Duration::from_secs(2);
/// How many members of a group are tried as the one that asks the others.
const RELAYS_MAX: usize = 3;

/// How a question travels.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Asks a node.
    async fn ask(&self, node: &str, question: &Question) -> Result<Answer, Silence>;
}

/// Why a node gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// It is there, and has much to do: what it has programmed is not known.
    #[error("it takes longer than it was given")]
    Late,
    /// It is not there, or does not know the question.
    #[error("it is not asked again: {0:#}")]
    Nobody(anyhow::Error),
}

/// See the module.
pub struct Peers {
    own: String,
    nodes: Nodes,
    ask: Arc<dyn Ask>,
    /// Up to which version each node was heard to have everything.
    known: Mutex<HashMap<String, u64>>,
    /// The newest version anybody waits for.
    wanted: AtomicU64,
    /// Up to which version all have everything. Held while a round goes on.
    round: tokio::sync::Mutex<u64>,
}

impl Peers {
    /// Over the nodes that can be asked.
    pub fn new(own: &str, nodes: Nodes, ask: Arc<dyn Ask>) -> Self {
        Self {
            own: own.to_owned(),
            nodes,
            ask,
            known: Mutex::default(),
            wanted: AtomicU64::new(0),
            round: tokio::sync::Mutex::new(0),
        }
    }

    /// Returns when every other node that can be asked has everything up to this version. Waits for ever on one that is
    /// there and stays behind: the caller bounds it.
    pub async fn reached(&self, up_to: u64) {
        self.wanted.fetch_max(up_to, Ordering::Relaxed);
        let mut reached = self.round.lock().await;
        if *reached >= up_to {
            return;
        }
        let wanted = self.wanted.load(Ordering::Relaxed);
        self.ask_all(wanted).await;
        *reached = wanted;
    }

    /// Asks these nodes at most so long; returns who is behind after it.
    pub async fn behind(&self, up_to: u64, nodes: &[String], within: Duration) -> Vec<String> {
        let questions = nodes.iter().map(|node| async move {
            let question = Question { up_to, nodes: Vec::new(), within };
            let is_behind = match self.put(node, &question).await {
                Ok(behind) => !behind.is_empty(),
                Err(Silence::Late) => true,
                Err(Silence::Nobody(_)) => false,
            };
            is_behind.then(|| node.clone())
        });
        join_all(questions).await.into_iter().flatten().collect()
    }

    async fn ask_all(&self, up_to: u64) {
        let mut names = self.nodes.names();
        loop {
            names.retain(|name| self.known.lock().get(name).is_none_or(|known| *known < up_to));
            if names.is_empty() {
                return;
            }
            let groups = plan_groups(&self.own, &names);
            let behind = join_all(groups.into_iter().map(|group| self.ask_group(group, up_to))).await;
            // Who answered and is behind is asked again as long as somebody waits; who is gone since is not.
            let there = self.nodes.names();
            names = behind.into_iter().flatten().filter(|name| there.binary_search(name).is_ok()).collect();
            names.sort();
        }
    }

    /// Returns those of a group that are behind, or of whom nothing is known yet.
    async fn ask_group(&self, mut group: Group, up_to: u64) -> Vec<String> {
        let mut late = Vec::new();
        for _ in 0..RELAYS_MAX {
            if group.is_empty() {
                break;
            }
            let first = group.remove(0);
            let question = Question { up_to, nodes: group.clone(), within: WITHIN };
            match self.put(&first, &question).await {
                Ok(behind) => {
                    let reached = group.iter().filter(|name| !behind.contains(name));
                    self.known.lock().extend(reached.map(|name| (name.clone(), up_to)));
                    late.extend(behind);
                    return late;
                }
                Err(Silence::Late) => late.push(first),
                Err(Silence::Nobody(_)) => {}
            }
        }
        // The rest is asked by others the next time.
        late.extend(group);
        late
    }

    /// Asks one node, for others perhaps. Returns who is behind.
    async fn put(&self, node: &str, question: &Question) -> Result<Vec<String>, Silence> {
        if question.nodes.is_empty()
            && self.known.lock().get(node).is_some_and(|known| *known >= question.up_to)
        {
            return Ok(Vec::new());
        }
        match self.ask.ask(node, question).await {
            Ok(Answer { up_to, mut behind }) => {
                self.known.lock().insert(node.to_owned(), up_to);
                if up_to < question.up_to {
                    behind.push(node.to_owned());
                }
                Ok(behind)
            }
            Err(silence) => {
                tracing::debug!(node, "no answer: {silence}");
                Err(silence)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::cluster::{NodeView, ObjectName};

    /// Nodes that are so far; those of whom nothing is said are not there.
    #[derive(Default)]
    struct Fake {
        up_to: Mutex<BTreeMap<String, u64>>,
        asked: Mutex<Vec<String>>,
        /// Who is late the next time.
        late: Mutex<BTreeSet<String>>,
    }

    #[async_trait]
    impl Ask for Fake {
        async fn ask(&self, node: &str, question: &Question) -> Result<Answer, Silence> {
            self.asked.lock().push(node.to_owned());
            tokio::task::yield_now().await;
            if self.late.lock().remove(node) {
                return Err(Silence::Late);
            }
            let all = self.up_to.lock();
            let up_to = *all.get(node).ok_or_else(|| Silence::Nobody(anyhow::anyhow!("no such node")))?;
            let is_behind = |name: &&String| all.get(*name).is_some_and(|it| *it < question.up_to);
            Ok(Answer { up_to, behind: question.nodes.iter().filter(is_behind).cloned().collect() })
        }
    }

    fn peers(nodes: &[String], fake: &Arc<Fake>) -> Arc<Peers> {
        let view = || NodeView { addresses: vec![[10, 0, 0, 1].into()], ready: true, ..NodeView::default() };
        let of = |name: &String| (ObjectName { namespace: String::new(), name: name.clone() }, view());
        let known = Nodes::default();
        known.set("own", &nodes.iter().map(of).collect());
        Arc::new(Peers::new("own", known, fake.clone()))
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("n{number:03}")).collect()
    }

    #[tokio::test]
    async fn who_is_behind_is_waited_for_and_who_is_not_there_is_not() {
        let fake = Arc::new(Fake::default());
        fake.up_to.lock().extend([("n000".to_owned(), 9), ("n001".to_owned(), 5)]);
        let peers = peers(&names(3), &fake);
        let waiting = tokio::spawn({
            let peers = peers.clone();
            async move { peers.reached(7).await }
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        fake.up_to.lock().insert("n001".to_owned(), 7);
        waiting.await.unwrap();
        let asked = fake.asked.lock().len();
        peers.reached(6).await;
        assert_eq!(fake.asked.lock().len(), asked, "an older version needs no question");
    }

    #[tokio::test]
    async fn who_is_late_is_asked_again_alone_or_as_one_of_many() {
        for count in [2, 100] {
            let fake = Arc::new(Fake::default());
            let all = names(count);
            fake.up_to.lock().extend(all.iter().map(|name| (name.clone(), 7)));
            fake.late.lock().extend(all.iter().cloned());
            let peers = peers(&all, &fake);
            peers.reached(7).await;
            let known = peers.known.lock();
            assert!(all.iter().all(|name| known.get(name) == Some(&7)), "{known:?}");
        }
    }

    #[tokio::test]
    async fn of_many_nodes_few_are_asked_and_a_silent_one_is_passed_over() {
        let fake = Arc::new(Fake::default());
        let all = names(100);
        fake.up_to.lock().extend(all.iter().skip(1).map(|name| (name.clone(), 7)));
        let peers = peers(&all, &fake);
        peers.reached(7).await;
        assert!(fake.asked.lock().len() <= 12, "{:?}", fake.asked.lock());
        assert_eq!(peers.behind(8, &all[1..3], WITHIN).await, all[1..3]);
    }
}
