//! Cases: the watch cache over a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;

use super::{Scene, promises, soon};
use crate::cache::{CacheError, CacheEvent, CacheOptions, Feed, WatchCache, Watcher};
use crate::{Expect, Revision};

promises![
    a_cache_lists_what_the_store_holds_and_follows_it,
    a_list_and_a_watch_from_its_revision_leave_no_gap,
    a_record_is_decoded_once_for_all_its_readers,
    all_watchers_see_the_same_events_in_the_same_order,
    a_watcher_resumes_from_the_revision_it_saw,
    a_watcher_that_was_away_too_long_must_list_again,
    a_slow_watcher_is_closed_and_holds_up_nobody,
    a_watcher_gives_what_is_there_without_waiting,
    a_filtered_watcher_is_given_only_what_it_accepts,
    pages_of_a_snapshot_stay_what_they_were_while_the_cache_goes_on,
    a_snapshot_is_forgotten_when_the_ring_is_past_it,
    an_idle_cache_is_known_to_be_current,
    a_record_that_does_not_decode_is_reported_and_hides_no_other,
    a_dropped_watcher_leaves_nothing_behind,
];

type Text = WatchCache<String>;

fn decode(record: &crate::Record) -> Result<String, crate::cache::DecodeError> {
    Ok(str::from_utf8(&record.value)?.to_owned())
}

fn cache_with(scene: &Scene, options: CacheOptions) -> Arc<Text> {
    WatchCache::new(Feed::new(scene.store.clone()), scene.prefix.clone(), decode, options)
}

fn cache(scene: &Scene) -> Arc<Text> {
    cache_with(scene, CacheOptions::default())
}

async fn values(cache: &Text, prefix: &str) -> Vec<String> {
    cache.list(prefix).await.unwrap().0.iter().map(|item| item.value.clone()).collect()
}

async fn told(watcher: &mut Watcher<String>) -> Arc<CacheEvent<String>> {
    soon("an event", watcher.next()).await.expect("the watcher goes on").expect("the watcher is healthy")
}

/// `old→new` of an event, with `∅` for absence.
fn change(event: &CacheEvent<String>) -> String {
    let text = |item: &Option<Arc<crate::cache::Item<String>>>| {
        item.as_ref().map_or("∅".to_owned(), |i| i.value.clone())
    };
    format!("{}→{}", text(&event.previous), text(&event.current))
}

async fn a_cache_lists_what_the_store_holds_and_follows_it(scene: Scene) {
    scene.create("ns1/a", "one").await;
    scene.create("ns2/b", "two").await;
    let cache = cache(&scene);
    assert_eq!(values(&cache, &scene.prefix).await, ["one", "two"]);
    assert_eq!(values(&cache, &scene.key("ns2/")).await, ["two"]);

    scene.update("ns1/a", "three").await;
    scene.delete("ns2/b", Expect::Any).await.unwrap();
    let last = scene.create("ns1/c", "four").await;
    soon("the cache", cache.wait_for(last)).await.unwrap();
    let (items, revision) = cache.list(&scene.prefix).await.unwrap();
    assert_eq!(items.iter().map(|item| item.value.as_str()).collect::<Vec<_>>(), ["three", "four"]);
    assert!(revision >= last);
    let item = cache.get(&scene.key("ns1/c")).await.unwrap().unwrap();
    assert_eq!((item.revision, item.created), (last, last));
    assert!(cache.get(&scene.key("ns2/b")).await.unwrap().is_none());
}

async fn a_list_and_a_watch_from_its_revision_leave_no_gap(scene: Scene) {
    const WRITES: usize = 40;
    let cache = cache(&scene);
    let writer = {
        let scene = scene.clone();
        tokio::spawn(async move {
            for n in 0..WRITES {
                scene.create(&format!("{n:03}"), &format!("{n:03}")).await;
            }
        })
    };
    // The cache fills, lists and watches while the writes go on.
    let mut seen: Vec<String>;
    let mut watcher;
    loop {
        let (items, revision) = cache.list(&scene.prefix).await.unwrap();
        watcher = cache.watch(&scene.prefix, Some(revision)).await.unwrap();
        seen = items.iter().map(|item| item.value.clone()).collect();
        if seen.len() >= WRITES / 4 || writer.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut initial = cache.watch(&scene.prefix, None).await.unwrap();
    let mut seen_initial: Vec<String> =
        initial.take_initial().iter().map(|item| item.value.clone()).collect();
    for (seen, watcher) in [(&mut seen, &mut watcher), (&mut seen_initial, &mut initial)] {
        while seen.len() < WRITES {
            seen.push(told(watcher).await.current.as_ref().unwrap().value.clone());
        }
    }
    let expected: Vec<String> = (0..WRITES).map(|n| format!("{n:03}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(seen_initial, expected);
    writer.await.unwrap();
}

async fn a_record_is_decoded_once_for_all_its_readers(scene: Scene) {
    let decoded = Arc::new(AtomicUsize::new(0));
    let counter = decoded.clone();
    let counting = move |record: &crate::Record| {
        counter.fetch_add(1, Ordering::Relaxed);
        decode(record)
    };
    scene.create("a", "one").await;
    let feed = Feed::new(scene.store.clone());
    let cache = WatchCache::new(feed, scene.prefix.clone(), counting, CacheOptions::default());
    let mut watchers = Vec::new();
    for _ in 0..10 {
        watchers.push(cache.watch(&scene.prefix, None).await.unwrap());
    }
    scene.update("a", "two").await;
    let mut items = Vec::new();
    for watcher in &mut watchers {
        items.push(told(watcher).await.current.clone().unwrap());
    }
    items.push(cache.get(&scene.key("a")).await.unwrap().unwrap());
    assert!(items.windows(2).all(|pair| Arc::ptr_eq(&pair[0], &pair[1])), "one object, shared");
    assert_eq!(decoded.load(Ordering::Relaxed), 2, "one decode a version");
}

async fn all_watchers_see_the_same_events_in_the_same_order(scene: Scene) {
    let cache = cache(&scene);
    let mut watchers = Vec::new();
    for _ in 0..4 {
        watchers.push(cache.watch(&scene.prefix, None).await.unwrap());
    }
    let writes = (0..40).map(|n| {
        let scene = scene.clone();
        async move { scene.update(&format!("{}", n % 5), &n.to_string()).await }
    });
    join_all(writes).await;
    let mut orders = Vec::new();
    for watcher in &mut watchers {
        let mut order = Vec::new();
        for _ in 0..40 {
            let event = told(watcher).await;
            order.push((event.revision, change(&event)));
        }
        orders.push(order);
    }
    assert!(orders[0].windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(orders.iter().all(|order| *order == orders[0]));
}

async fn a_watcher_resumes_from_the_revision_it_saw(scene: Scene) {
    let cache = cache(&scene);
    let mut first = cache.watch(&scene.prefix, None).await.unwrap();
    scene.create("a", "one").await;
    let seen = told(&mut first).await.revision;
    drop(first);
    scene.update("a", "two").await;
    let last = scene.delete("a", Expect::Any).await.unwrap().revision;
    soon("the cache", cache.wait_for(last)).await.unwrap();
    let mut resumed = cache.watch(&scene.prefix, Some(seen)).await.unwrap();
    scene.create("a", "three").await;
    for expected in ["one→two", "two→∅", "∅→three"] {
        assert_eq!(change(&*told(&mut resumed).await), expected);
    }
}

async fn a_watcher_that_was_away_too_long_must_list_again(scene: Scene) {
    let start = scene.create("a", "0").await;
    let cache = cache_with(&scene, CacheOptions { ring_events_max: 3, ..CacheOptions::default() });
    cache.list(&scene.prefix).await.unwrap();
    let mut last = start;
    for n in 1..8 {
        last = scene.update("a", &n.to_string()).await;
    }
    soon("the cache", cache.wait_for(last)).await.unwrap();
    match cache.watch(&scene.prefix, Some(start)).await {
        Err(CacheError::Compacted { oldest }) => {
            assert!(oldest > start);
            assert!(
                cache.watch(&scene.prefix, Some(oldest)).await.is_ok(),
                "the oldest named is still there"
            );
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("events were silently skipped"),
    }
}

async fn a_slow_watcher_is_closed_and_holds_up_nobody(scene: Scene) {
    let cache = cache_with(&scene, CacheOptions { watcher_events_max: 4, ..CacheOptions::default() });
    let mut slow = cache.watch(&scene.prefix, None).await.unwrap();
    let mut quick = cache.watch(&scene.prefix, None).await.unwrap();
    for n in 0..10 {
        scene.update("a", &n.to_string()).await;
        assert_eq!(told(&mut quick).await.current.as_ref().unwrap().value, n.to_string());
    }
    let mut given = 0;
    let end = loop {
        match soon("the slow watcher's end", slow.next()).await {
            Some(Ok(_)) => given += 1,
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(CacheError::TooSlow { events_max: 4 }))), "{end:?}");
    assert_eq!(given, 4, "what was queued is given first");
    assert!(slow.next().await.is_none());
}

async fn a_watcher_gives_what_is_there_without_waiting(scene: Scene) {
    let cache = cache_with(&scene, CacheOptions { watcher_events_max: 2, ..CacheOptions::default() });
    let mut watcher = cache.watch(&scene.prefix, None).await.unwrap();
    assert!(watcher.take_ready().unwrap().is_empty());
    scene.create("a", "one").await;
    scene.create("b", "two").await;
    cache.wait_until_current().await.unwrap();
    let ready = watcher.take_ready().unwrap();
    assert_eq!(ready.iter().map(|event| change(event)).collect::<Vec<_>>(), ["∅→one", "∅→two"]);
    assert_eq!(watcher.position(), cache.revision());
    for name in ["c", "d", "e"] {
        scene.create(name, "more").await;
    }
    cache.wait_until_current().await.unwrap();
    let lost = watcher.take_ready();
    assert!(matches!(lost, Err(CacheError::TooSlow { events_max: 2 })), "{lost:?}");
}

async fn a_filtered_watcher_is_given_only_what_it_accepts(scene: Scene) {
    let cache = cache(&scene);
    let filter =
        Box::new(|event: &CacheEvent<String>| event.current.as_ref().is_some_and(|item| item.value == "yes"));
    let mut watcher = cache.watch_where(&scene.prefix, None, filter).await.unwrap();
    scene.create("a", "no").await;
    scene.create("b", "yes").await;
    assert_eq!(&*told(&mut watcher).await.key, scene.key("b"));
}

async fn an_idle_cache_is_known_to_be_current(scene: Scene) {
    let idle = Scene { prefix: format!("{}idle/", scene.prefix), ..scene.clone() };
    let cache = cache(&idle);
    let watcher = cache.watch(&idle.prefix, None).await.unwrap();
    let elsewhere: Revision = scene.create("busy/a", "one").await;
    let current = soon("the idle cache", cache.wait_until_current()).await.unwrap();
    assert!(current >= elsewhere);
    assert!(cache.revision() >= elsewhere);
    assert!(watcher.position() >= elsewhere, "a bookmark moves on though nothing happened below the prefix");
}

async fn a_record_that_does_not_decode_is_reported_and_hides_no_other(scene: Scene) {
    let picky = |record: &crate::Record| {
        if &record.value[..] == b"bad" { Err("not an object".into()) } else { decode(record) }
    };
    scene.create("a", "bad").await;
    scene.create("b", "good").await;
    let feed = Feed::new(scene.store.clone());
    let cache = WatchCache::new(feed, scene.prefix.clone(), picky, CacheOptions::default());
    assert_eq!(values(&cache, &scene.prefix).await, ["good"]);
    assert_eq!(
        cache.undecodable().into_iter().collect::<Vec<_>>(),
        [(scene.key("a"), "not an object".to_owned())]
    );
    let last = scene.update("a", "good again").await;
    soon("the cache", cache.wait_for(last)).await.unwrap();
    assert_eq!(values(&cache, &scene.prefix).await, ["good again", "good"]);
    assert!(cache.undecodable().is_empty());
}

async fn a_dropped_watcher_leaves_nothing_behind(scene: Scene) {
    let cache = cache(&scene);
    let watchers =
        [cache.watch(&scene.prefix, None).await.unwrap(), cache.watch(&scene.prefix, None).await.unwrap()];
    assert_eq!(cache.watchers(), 2);
    drop(watchers);
    assert_eq!(cache.watchers(), 0);
}

async fn pages_of_a_snapshot_stay_what_they_were_while_the_cache_goes_on(scene: Scene) {
    for n in 0..10 {
        scene.create(&format!("{n}"), "old").await;
    }
    let cache = cache(&scene);
    cache.wait_until_current().await.unwrap();
    let snapshot = cache.snapshot().await.unwrap();
    let first = snapshot.page(&scene.prefix, None, Some(4));
    assert_eq!((first.items.len(), first.remaining), (4, 6));
    cache.keep(&snapshot);

    scene.update("5", "new").await;
    scene.delete("6", Expect::Any).await.unwrap();
    let newest = scene.create("4a", "new").await;
    cache.wait_for(newest).await.unwrap();
    let again = cache.snapshot_at(snapshot.revision()).await.unwrap().expect("it was kept");
    let after = first.items.last().map(|item| item.key.to_string());
    let second = again.page(&scene.prefix, after.as_deref(), Some(4));
    let names: Vec<_> = second.items.iter().map(|item| &item.key[scene.prefix.len()..]).collect();
    assert_eq!((names, second.remaining), (vec!["4", "5", "6", "7"], 2));
    assert!(second.items.iter().all(|item| item.value == "old"));
    let present = cache.snapshot_at(cache.revision()).await.unwrap().expect("the present is there");
    assert_eq!(present.page(&scene.prefix, None, None).items.len(), 10);
    let between = Revision(newest.0 - 1);
    assert!(cache.snapshot_at(between).await.unwrap().is_none(), "nobody kept that one");
}

async fn a_snapshot_is_forgotten_when_the_ring_is_past_it(scene: Scene) {
    scene.create("a", "0").await;
    let options = CacheOptions { ring_events_max: 3, ..CacheOptions::default() };
    let cache = cache_with(&scene, options);
    cache.wait_until_current().await.unwrap();
    let snapshot = cache.snapshot().await.unwrap();
    cache.keep(&snapshot);
    for n in 0..5 {
        scene.update("a", &format!("{n}")).await;
    }
    cache.wait_until_current().await.unwrap();
    assert!(cache.snapshot_at(snapshot.revision()).await.unwrap().is_none());
}
