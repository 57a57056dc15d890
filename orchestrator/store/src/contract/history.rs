//! Cases: lists, snapshots and pages, and what compaction forgets.

use futures::StreamExt;

use super::{Scene, owned, promises, soon};
use crate::{Expect, ListRequest, Revision, StoreError};

promises![
    a_list_is_in_key_order_and_within_its_prefix,
    an_empty_list_has_a_revision,
    pages_are_of_one_snapshot_whatever_is_written_meanwhile,
    a_page_that_ends_exactly_is_the_last,
    a_list_of_the_past_shows_the_past,
    a_list_of_the_future_is_refused,
    compaction_forgets_the_past_and_keeps_the_present,
    compacting_backwards_or_beyond_the_present_is_refused,
];

async fn a_list_is_in_key_order_and_within_its_prefix(scene: Scene) {
    let inner = Scene { prefix: format!("{}a/", scene.prefix), ..scene.clone() };
    for name in ["c", "a", "b", "a.b", "ab"] {
        inner.create(name, name).await;
    }
    scene.create("a", "outside").await;
    scene.create("a0", "outside").await;
    let last = scene.create("ab/x", "outside").await;
    let page = inner.list(None).await;
    let expected = [("a", "a"), ("a.b", "a.b"), ("ab", "ab"), ("b", "b"), ("c", "c")];
    assert_eq!(inner.contents(&page), owned(&expected));
    assert!(page.revision >= last);
    assert_eq!((page.more, page.remaining), (false, Some(0)));
}

async fn an_empty_list_has_a_revision(scene: Scene) {
    let page = scene.list(None).await;
    assert_eq!(page.records, []);
    assert!(page.revision > Revision(0));
}

async fn pages_are_of_one_snapshot_whatever_is_written_meanwhile(scene: Scene) {
    for n in 0..7 {
        scene.create(&format!("{n}"), "old").await;
    }
    let mut request = ListRequest {
        prefix: scene.prefix.clone(),
        limit: Some(3),
        count_remaining: true,
        ..ListRequest::default()
    };
    let first = scene.store.list(request.clone()).await.unwrap();
    assert_eq!((first.records.len(), first.more, first.remaining), (3, true, Some(4)));

    scene.update("4", "new").await;
    scene.delete("5", Expect::Any).await.unwrap();
    scene.create("3a", "new").await;
    request.at = Some(first.revision);
    request.after = first.records.last().map(|record| record.key.clone());
    let second = scene.store.list(request.clone()).await.unwrap();
    assert_eq!(scene.contents(&second), owned(&[("3", "old"), ("4", "old"), ("5", "old")]));
    assert_eq!((second.revision, second.more, second.remaining), (first.revision, true, Some(1)));

    request.after = second.records.last().map(|record| record.key.clone());
    let third = scene.store.list(request).await.unwrap();
    assert_eq!(scene.contents(&third), owned(&[("6", "old")]));
    assert_eq!((third.more, third.remaining), (false, Some(0)));
}

async fn a_page_that_ends_exactly_is_the_last(scene: Scene) {
    for name in ["a", "b"] {
        scene.create(name, "x").await;
    }
    scene.create("gone", "x").await;
    scene.delete("gone", Expect::Any).await.unwrap();
    let request = ListRequest {
        prefix: scene.prefix.clone(),
        limit: Some(2),
        count_remaining: true,
        ..ListRequest::default()
    };
    let page = scene.store.list(request).await.unwrap();
    assert_eq!((page.records.len(), page.more, page.remaining), (2, false, Some(0)));
}

async fn a_list_of_the_past_shows_the_past(scene: Scene) {
    let first = scene.create("a", "one").await;
    let second = scene.update("a", "two").await;
    scene.create("b", "one").await;
    let third = scene.delete("a", Expect::Any).await.unwrap().revision;
    let at = async |revision| scene.contents(&scene.list(Some(revision)).await);
    assert_eq!(at(first).await, owned(&[("a", "one")]));
    assert_eq!(at(second).await, owned(&[("a", "two")]));
    assert_eq!(at(third).await, owned(&[("b", "one")]));
    assert_eq!(scene.list(Some(first)).await.revision, first);
}

async fn a_list_of_the_future_is_refused(scene: Scene) {
    let future = Revision(scene.store.revision().await.unwrap().0 + 1000);
    let request = ListRequest { prefix: scene.prefix.clone(), at: Some(future), ..ListRequest::default() };
    match scene.store.list(request).await {
        Err(StoreError::FutureRevision { requested, newest }) => {
            assert_eq!(requested, future);
            assert!(newest < future);
        }
        other => panic!("{other:?}"),
    }
}

async fn compaction_forgets_the_past_and_keeps_the_present(scene: Scene) {
    let before = scene.store.revision().await.unwrap();
    scene.create("a", "one").await;
    let old = scene.update("a", "two").await;
    scene.create("gone", "x").await;
    scene.delete("gone", Expect::Any).await.unwrap();
    let floor = scene.update("a", "three").await;
    let last = scene.update("a", "four").await;
    scene.store.compact(floor).await.unwrap();

    let past = ListRequest { prefix: scene.prefix.clone(), at: Some(old), ..ListRequest::default() };
    let answer = scene.store.list(past).await;
    assert!(matches!(answer, Err(StoreError::Compacted { .. })), "{answer:?}");
    assert_eq!(scene.contents(&scene.list(Some(floor)).await), owned(&[("a", "three")]));
    assert_eq!(scene.contents(&scene.list(None).await), owned(&[("a", "four")]));

    let refused = match scene.store.watch(&scene.prefix, before).await {
        Err(error) => error,
        Ok(mut watch) => soon("the watch's end", watch.next()).await.unwrap().unwrap_err(),
    };
    assert!(matches!(refused, StoreError::Compacted { .. }), "{refused}");
    let mut watch = scene.watch(floor).await;
    assert_eq!(super::next(&mut watch).await.revision, last);
    // Writing goes on, and history grows again from here.
    scene.update("a", "five").await;
    assert_eq!(super::sketch(&scene, &super::next(&mut watch).await), "~a=four→five");
    assert_eq!(scene.contents(&scene.list(Some(last)).await), owned(&[("a", "four")]));
}

async fn compacting_backwards_or_beyond_the_present_is_refused(scene: Scene) {
    scene.create("a", "one").await;
    let floor = scene.update("a", "two").await;
    scene.store.compact(floor).await.unwrap();
    let again = scene.store.compact(floor).await;
    assert!(matches!(again, Err(StoreError::Compacted { .. })), "{again:?}");
    let future = Revision(scene.store.revision().await.unwrap().0 + 1000);
    let beyond = scene.store.compact(future).await;
    assert!(
        matches!(beyond, Err(StoreError::FutureRevision { requested, .. }) if requested == future),
        "{beyond:?}"
    );
}
