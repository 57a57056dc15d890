//! The agent dies between any two steps of an ADD or a DEL, and the next one makes it right.
//!
//! A verb is polled a bounded number of times and then dropped: it ends at one of the points at which it waits for
//! the kernel or the disk, and every such point is tried.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use penstock_cni::protocol::{AddRequest, AttachmentId, Bandwidth, DelRequest, PodName, Request, Response};
use penstock_network::NoHooks;
use serde_json::json;

use crate::lab::{Namespace, Node, is_root, reaches};

/// More waits than any verb has; a verb that did not end by then hangs.
const WAITS_MAX: usize = 2000;

/// A future that dies when it is polled once too often.
struct Mortal<F> {
    inner: Pin<Box<F>>,
    polls_left: usize,
}

impl<F: Future> Future for Mortal<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left == 0 {
            return Poll::Ready(None);
        }
        self.polls_left -= 1;
        self.inner.as_mut().poll(context).map(Some)
    }
}

async fn within<F: Future>(polls: usize, verb: F) -> Option<F::Output> {
    Mortal { inner: Box::pin(verb), polls_left: polls }.await
}

fn id() -> AttachmentId {
    AttachmentId { container: "a".into(), interface: "eth0".into() }
}

fn add(pod: &Namespace) -> Request {
    Request::Add(AddRequest {
        id: id(),
        netns: pod.path().display().to_string(),
        network: "penstock".into(),
        pod: PodName { namespace: "default".into(), name: "a".into(), uid: "u".into() },
        port_mappings: Vec::new(),
        bandwidth: Bandwidth { ingress_rate: 80_000_000, egress_rate: 80_000_000, ..Default::default() },
    })
}

fn del() -> Request {
    Request::Del(DelRequest { id: id() })
}

/// A node of two families.
fn node() -> Node {
    Node::alone().with_v6(1, "fd00:240::11/64")
}

/// Tries `story` with a verb that lives for 1, 2, 3 … polls, until it once lived to its end. Returns how many died.
async fn at_every_wait<T: Future<Output = bool>>(mut story: impl FnMut(usize) -> T) -> usize {
    for polls in 1..WAITS_MAX {
        if story(polls).await {
            return polls - 1;
        }
    }
    panic!("the verb waits more than {WAITS_MAX} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_cut_off_at_any_wait_is_completed_by_the_next() {
    if !is_root() {
        return;
    }
    let deaths = at_every_wait(async |polls| {
        let (mut node, pod) = (node(), Namespace::new());
        let dying = node.start(Arc::new(NoHooks)).await;
        let done = within(polls, dying.answer(add(&pod))).await.is_some();
        node.kill().await;
        drop(dying);
        node.start(Arc::new(NoHooks)).await;
        let address = node.add("a", &pod).await;
        assert_eq!((node.records().len(), node.pod_links()), (1, 1), "after {polls} polls");
        assert!(reaches(&node.namespace, &pod, address), "after {polls} polls");
        let limits = json!({"ingressRate": 80_000_000, "egressRate": 80_000_000});
        let add =
            node.cni("ADD", "a", Some(pod.path()), json!({"runtimeConfig": {"bandwidth": limits}})).await;
        let check = node.cni("CHECK", "a", Some(pod.path()), json!({"prevResult": add.output})).await;
        assert_eq!(check.code, 0, "after {polls} polls: {}", check.output);
        done
    })
    .await;
    println!("an ADD was cut off in {deaths} places");
    assert!(deaths >= 10, "only {deaths} places");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_cut_off_at_any_wait_leaves_nothing_that_a_del_or_a_new_agent_does_not_remove() {
    if !is_root() {
        return;
    }
    at_every_wait(async |polls| {
        let (mut node, pod) = (node(), Namespace::new());
        let dying = node.start(Arc::new(NoHooks)).await;
        let done = within(polls, dying.answer(add(&pod))).await.is_some();
        node.kill().await;
        drop(dying);
        let next = node.start(Arc::new(NoHooks)).await;
        assert_eq!(next.answer(del()).await, Response::Done, "after {polls} polls");
        assert_eq!((node.records().len(), node.pod_links()), (0, 0), "after {polls} polls");
        let left = node.namespace.ip("route show") + &node.namespace.ip("-6 route show");
        assert!(
            !left.contains("10.244.1.2") && !left.contains("fd00:244:0:1::2"),
            "after {polls} polls: {left}"
        );
        done
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_del_cut_off_at_any_wait_is_completed_by_the_next_and_its_address_comes_back() {
    if !is_root() {
        return;
    }
    let deaths = at_every_wait(async |polls| {
        let (mut node, pod) = (node(), Namespace::new());
        let dying = node.start(Arc::new(NoHooks)).await;
        assert!(matches!(dying.answer(add(&pod)).await, Response::Attached(_)));
        let done = within(polls, dying.answer(del())).await.is_some();
        node.kill().await;
        drop(dying);
        let next = node.start(Arc::new(NoHooks)).await;
        assert_eq!(next.answer(del()).await, Response::Done, "after {polls} polls");
        assert_eq!((node.records().len(), node.pod_links()), (0, 0), "after {polls} polls");
        let address = node.add("a", &pod).await;
        assert!(reaches(&node.namespace, &pod, address), "after {polls} polls");
        done
    })
    .await;
    println!("a DEL was cut off in {deaths} places");
    assert!(deaths >= 2, "only {deaths} places");
}
