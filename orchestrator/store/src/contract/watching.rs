//! Cases: events, in order, from now and from the past; and records that run out.

use futures::StreamExt;

use super::{PATIENCE, Scene, next, promises, sketch, soon};
use crate::{Expect, Revision};

promises![
    a_watch_tells_creations_updates_and_deletions_in_order,
    a_watch_sees_only_its_prefix,
    a_watch_from_the_past_is_told_what_happened_and_goes_on,
    a_watch_after_a_revision_does_not_repeat_it,
    every_watch_sees_every_concurrent_write_once_and_in_the_same_order,
    a_watch_opened_during_writes_misses_none,
    a_record_with_a_time_to_live_is_deleted_by_an_event,
    a_record_written_again_without_one_outlives_its_time,
];

async fn a_watch_tells_creations_updates_and_deletions_in_order(scene: Scene) {
    let mut watch = scene.watch(scene.store.revision().await.unwrap()).await;
    let revisions = [
        scene.create("a", "one").await,
        scene.update("a", "two").await,
        scene.delete("a", Expect::Any).await.unwrap().revision,
    ];
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(next(&mut watch).await);
    }
    assert_eq!(
        seen.iter().map(|e| sketch(&scene, e)).collect::<Vec<_>>(),
        ["+a=one", "~a=one→two", "-a=two"]
    );
    assert_eq!(seen.iter().map(|e| e.revision).collect::<Vec<_>>(), revisions);
    let updated = seen[1].current.clone().unwrap();
    assert_eq!((updated.created, updated.modified), (revisions[0], revisions[1]));
}

async fn a_watch_sees_only_its_prefix(scene: Scene) {
    let inner = Scene { prefix: format!("{}pods/", scene.prefix), ..scene.clone() };
    let mut watch = inner.watch(scene.store.revision().await.unwrap()).await;
    scene.create("podsets/a", "no").await;
    scene.create("pod", "no").await;
    inner.create("a", "yes").await;
    assert_eq!(sketch(&inner, &next(&mut watch).await), "+a=yes");
}

async fn a_watch_from_the_past_is_told_what_happened_and_goes_on(scene: Scene) {
    let start = scene.store.revision().await.unwrap();
    scene.create("a", "one").await;
    scene.update("a", "two").await;
    scene.create("b", "one").await;
    scene.delete("a", Expect::Any).await.unwrap();
    scene.create("a", "new").await;
    let mut watch = scene.watch(start).await;
    scene.update("b", "live").await;
    for expected in ["+a=one", "~a=one→two", "+b=one", "-a=two", "+a=new", "~b=one→live"] {
        assert_eq!(sketch(&scene, &next(&mut watch).await), expected);
    }
}

async fn a_watch_after_a_revision_does_not_repeat_it(scene: Scene) {
    scene.create("a", "one").await;
    let second = scene.update("a", "two").await;
    scene.update("a", "three").await;
    let mut watch = scene.watch(second).await;
    assert_eq!(sketch(&scene, &next(&mut watch).await), "~a=two→three");
}

async fn every_watch_sees_every_concurrent_write_once_and_in_the_same_order(scene: Scene) {
    const TASKS: usize = 8;
    const ROUNDS: usize = 12;
    let start = scene.store.revision().await.unwrap();
    let mut early = [scene.watch(start).await, scene.watch(start).await];
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let scene = scene.clone();
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    scene.update(&format!("{task}"), &round.to_string()).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut late = scene.watch(start).await;
    let mut orders = Vec::new();
    for watch in early.iter_mut().chain([&mut late]) {
        let mut order = Vec::new();
        for _ in 0..TASKS * ROUNDS {
            let event = next(watch).await;
            order.push((event.revision, sketch(&scene, &event)));
        }
        orders.push(order);
    }
    assert!(orders[0].windows(2).all(|pair| pair[0].0 < pair[1].0), "revisions increase");
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
}

async fn a_watch_opened_during_writes_misses_none(scene: Scene) {
    const WRITES: usize = 60;
    let start = scene.store.revision().await.unwrap();
    let writer = {
        let scene = scene.clone();
        tokio::spawn(async move {
            for n in 0..WRITES {
                scene.create(&format!("{n:03}"), "x").await;
            }
        })
    };
    let mut watches = Vec::new();
    while !writer.is_finished() {
        watches.push(scene.watch(start).await);
        tokio::task::yield_now().await;
        if watches.len() > 20 {
            break;
        }
    }
    for watch in &mut watches {
        for n in 0..WRITES {
            assert_eq!(sketch(&scene, &next(watch).await), format!("+{n:03}=x"));
        }
    }
    writer.await.unwrap();
}

async fn a_record_with_a_time_to_live_is_deleted_by_an_event(scene: Scene) {
    let mut watch = scene.watch(scene.store.revision().await.unwrap()).await;
    let put = scene.put_for("event", "brief", 1).await;
    assert_eq!(scene.value("event").await.as_deref(), Some("brief"), "it lives first");
    assert_eq!(sketch(&scene, &next(&mut watch).await), "+event=brief");
    let gone = next(&mut watch).await;
    assert_eq!(sketch(&scene, &gone), "-event=brief");
    assert!(gone.revision > put);
    assert_eq!(scene.value("event").await, None);
}

async fn a_record_written_again_without_one_outlives_its_time(scene: Scene) {
    let start: Revision = scene.put_for("kept", "brief", 1).await;
    scene.update("kept", "for good").await;
    // Ends after the first one's time: the store has then looked at it.
    scene.put_for("witness", "brief", 2).await;
    let mut watch = scene.watch(start).await;
    let gone = tokio::time::timeout(PATIENCE, async {
        loop {
            let event = watch.next().await.unwrap().unwrap();
            if event.current.is_none() {
                return event.key;
            }
        }
    });
    assert_eq!(soon("an expiry", gone).await.unwrap(), scene.key("witness"));
    assert_eq!(scene.value("kept").await.as_deref(), Some("for good"));
}
