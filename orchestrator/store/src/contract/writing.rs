//! Cases: compare and set, limits, and many writers at once.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;

use super::{Scene, promises};
use crate::{Expect, Mutation, Revision, StoreError, VALUE_BYTES_MAX, Write};

promises![
    a_created_record_is_read_back,
    creating_what_exists_conflicts_and_shows_the_record,
    an_update_moves_modified_and_keeps_created,
    a_stale_update_conflicts_and_changes_nothing,
    updating_what_is_absent_conflicts_with_nothing,
    a_deleted_record_is_gone_and_was_returned,
    deleting_what_is_absent_or_changed_conflicts,
    a_recreated_record_is_a_new_creation,
    every_write_has_its_own_greater_revision,
    of_many_concurrent_creations_exactly_one_wins,
    concurrent_compare_and_set_loses_no_update,
    a_value_beyond_the_limit_is_refused_with_both_sizes,
    a_value_of_a_mebibyte_and_an_empty_one_are_stored,
    an_unusable_key_is_refused,
];

async fn a_created_record_is_read_back(scene: Scene) {
    let revision = scene.create("a", "one").await;
    let record = scene.store.get(&scene.key("a")).await.unwrap().unwrap();
    assert_eq!((record.key, record.value), (scene.key("a"), Bytes::from("one")));
    assert_eq!((record.created, record.modified), (revision, revision));
    assert_eq!(scene.value("b").await, None);
}

async fn creating_what_exists_conflicts_and_shows_the_record(scene: Scene) {
    let revision = scene.create("a", "one").await;
    match scene.put("a", Expect::Absent, "two").await {
        Err(StoreError::Conflict { key, current: Some(current) }) => {
            assert_eq!(key, scene.key("a"));
            assert_eq!((current.value, current.modified), (Bytes::from("one"), revision));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.value("a").await.as_deref(), Some("one"));
}

async fn an_update_moves_modified_and_keeps_created(scene: Scene) {
    let created = scene.create("a", "one").await;
    let committed = scene.put("a", Expect::Revision(created), "two").await.unwrap();
    assert_eq!(committed.previous.unwrap().value, Bytes::from("one"));
    let record = scene.store.get(&scene.key("a")).await.unwrap().unwrap();
    assert_eq!((record.created, record.modified), (created, committed.revision));
    assert_eq!(record.value, Bytes::from("two"));
}

async fn a_stale_update_conflicts_and_changes_nothing(scene: Scene) {
    let first = scene.create("a", "one").await;
    let second = scene.update("a", "two").await;
    match scene.put("a", Expect::Revision(first), "three").await {
        Err(StoreError::Conflict { current: Some(current), .. }) => assert_eq!(current.modified, second),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.value("a").await.as_deref(), Some("two"));
}

async fn updating_what_is_absent_conflicts_with_nothing(scene: Scene) {
    let answer = scene.put("a", Expect::Revision(Revision(1)), "one").await;
    assert!(matches!(answer, Err(StoreError::Conflict { current: None, .. })), "{answer:?}");
}

async fn a_deleted_record_is_gone_and_was_returned(scene: Scene) {
    let created = scene.create("a", "one").await;
    let committed = scene.delete("a", Expect::Revision(created)).await.unwrap();
    assert!(committed.revision > created);
    assert_eq!(committed.previous.unwrap().value, Bytes::from("one"));
    assert_eq!(scene.value("a").await, None);
    assert_eq!(scene.list(None).await.records, []);
}

async fn deleting_what_is_absent_or_changed_conflicts(scene: Scene) {
    for expect in [Expect::Any, Expect::Absent, Expect::Revision(Revision(1))] {
        let answer = scene.delete("a", expect).await;
        assert!(matches!(answer, Err(StoreError::Conflict { current: None, .. })), "{expect:?}: {answer:?}");
    }
    let first = scene.create("a", "one").await;
    scene.update("a", "two").await;
    for expect in [Expect::Absent, Expect::Revision(first)] {
        let answer = scene.delete("a", expect).await;
        assert!(
            matches!(answer, Err(StoreError::Conflict { current: Some(_), .. })),
            "{expect:?}: {answer:?}"
        );
    }
    assert_eq!(scene.value("a").await.as_deref(), Some("two"));
}

async fn a_recreated_record_is_a_new_creation(scene: Scene) {
    scene.create("a", "one").await;
    scene.delete("a", Expect::Any).await.unwrap();
    let again = scene.create("a", "two").await;
    let record = scene.store.get(&scene.key("a")).await.unwrap().unwrap();
    assert_eq!((record.created, record.modified), (again, again));
}

async fn every_write_has_its_own_greater_revision(scene: Scene) {
    let mut last = scene.store.revision().await.unwrap();
    assert!(last > Revision(0), "even an empty store has a revision a list can name");
    for round in 0..5 {
        let revision = scene.update("a", &round.to_string()).await;
        assert!(revision > last);
        assert!(scene.store.revision().await.unwrap() >= revision);
        last = revision;
    }
    let writes = join_all((0..32).map(|n| {
        let scene = scene.clone();
        async move { scene.create(&format!("many-{n}"), "x").await }
    }));
    assert_eq!(writes.await.into_iter().collect::<BTreeSet<_>>().len(), 32);
}

async fn of_many_concurrent_creations_exactly_one_wins(scene: Scene) {
    let attempts = (0..24).map(|n| {
        let scene = scene.clone();
        tokio::spawn(async move { scene.put("a", Expect::Absent, &n.to_string()).await.is_ok() })
    });
    let won = join_all(attempts).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert_eq!(won, 1);
}

async fn concurrent_compare_and_set_loses_no_update(scene: Scene) {
    const TASKS: usize = 8;
    const ROUNDS: usize = 10;
    scene.create("counter", "0").await;
    let tasks = (0..TASKS).map(|_| {
        let scene = scene.clone();
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let mut record = scene.store.get(&scene.key("counter")).await.unwrap();
                loop {
                    let now = record.unwrap();
                    let number: usize = str::from_utf8(&now.value).unwrap().parse().unwrap();
                    let expect = Expect::Revision(now.modified);
                    match scene.put("counter", expect, &(number + 1).to_string()).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { current, .. }) => record = current,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    assert_eq!(scene.value("counter").await, Some((TASKS * ROUNDS).to_string()));
}

async fn a_value_beyond_the_limit_is_refused_with_both_sizes(scene: Scene) {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES_MAX + 1]);
    let mutation = Mutation::Put { value, lease_ttl_seconds: None };
    let answer = scene.store.commit(Write { key: scene.key("a"), expect: Expect::Any, mutation }).await;
    match answer {
        Err(StoreError::TooLarge { key, value_bytes, value_bytes_max }) => {
            assert_eq!(
                (key, value_bytes, value_bytes_max),
                (scene.key("a"), VALUE_BYTES_MAX + 1, VALUE_BYTES_MAX)
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.value("a").await, None);
}

async fn a_value_of_a_mebibyte_and_an_empty_one_are_stored(scene: Scene) {
    let large = "x".repeat(1 << 20);
    for name in ["a", "b", "c", "d", "e", "f"] {
        scene.create(name, &large).await;
    }
    scene.create("nothing", "").await;
    let page = scene.list(None).await;
    let sizes: Vec<usize> = page.records.iter().map(|record| record.value.len()).collect();
    assert_eq!(sizes, [1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 0]);
}

async fn an_unusable_key_is_refused(scene: Scene) {
    for key in [String::new(), scene.key("a\0b"), scene.key(&"k".repeat(5000))] {
        let mutation = Mutation::Put { value: Bytes::new(), lease_ttl_seconds: None };
        let answer = scene.store.commit(Write { key, expect: Expect::Any, mutation }).await;
        assert!(matches!(answer, Err(StoreError::InvalidKey { .. })), "{answer:?}");
    }
}
