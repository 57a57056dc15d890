//! Reading: selectors, pages, watches.

use futures::StreamExt as _;
use penstock_apiserver::registry::{DeleteOptions, ListOptions, Target, WatchItem};
use serde_json::json;

use crate::cluster::{Cluster, context};

async fn fill(cluster: &Cluster, names: &[&str]) {
    for name in names {
        cluster
            .create("configmaps", json!({"metadata": {"name": name, "labels": {"is": name}}}))
            .await
            .unwrap();
    }
}

fn here() -> Target {
    Target::collection(Some("default"))
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a", "b", "c", "d", "e"]).await;
    let d = cluster.kind("configmaps");
    let mut options = ListOptions { limit: Some(2), ..ListOptions::default() };
    let first = cluster.registry.list(&context(), &d, &here(), &options).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (2, Some(3)));
    // What happens in between is not seen.
    cluster.delete("configmaps", "e", DeleteOptions::default()).await.unwrap();
    let mut names: Vec<String> = first.items.iter().map(|i| i.name.clone()).collect();
    options.continue_token = first.continue_token;
    while options.continue_token.is_some() {
        let page = cluster.registry.list(&context(), &d, &here(), &options).await.unwrap();
        assert_eq!(page.resource_version, first.resource_version);
        names.extend(page.items.iter().map(|i| i.name.clone()));
        options.continue_token = page.continue_token;
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn selectors_select() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a", "b", "c"]).await;
    let d = cluster.kind("configmaps");
    let names = |labels: Option<&str>, fields: Option<&str>| {
        let options = ListOptions {
            label_selector: labels.map(Into::into),
            field_selector: fields.map(Into::into),
            ..ListOptions::default()
        };
        let (registry, d) = (cluster.registry.clone(), d.clone());
        async move {
            let list = registry.list(&context(), &d, &here(), &options).await?;
            Ok::<_, penstock_apiserver::error::ApiError>(
                list.items.iter().map(|i| i.name.clone()).collect::<Vec<_>>(),
            )
        }
    };
    assert_eq!(names(Some("is in (a,c)"), None).await.unwrap(), ["a", "c"]);
    assert_eq!(names(None, Some("metadata.name!=b")).await.unwrap(), ["a", "c"]);
    let e = names(None, Some("spec.x=1")).await.unwrap_err();
    assert_eq!((e.code, e.message.as_str()), (400, "field label not supported: spec.x"));
}

fn shown(item: &WatchItem) -> (&'static str, String) {
    match item {
        WatchItem::Added(o) => ("ADDED", o.name.clone()),
        WatchItem::Modified(o) => ("MODIFIED", o.name.clone()),
        WatchItem::Deleted(o) => ("DELETED", o.name.clone()),
        WatchItem::Bookmark(_) => ("BOOKMARK", String::new()),
        WatchItem::Error(e) => ("ERROR", e.reason.to_string()),
    }
}

#[tokio::test]
async fn a_watch_sees_objects_come_into_and_leave_its_selection() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a", "b"]).await;
    let d = cluster.kind("configmaps");
    let list = cluster.registry.list(&context(), &d, &here(), &ListOptions::default()).await.unwrap();
    let options = ListOptions {
        resource_version: Some(list.resource_version.to_string()),
        label_selector: Some("on=1".into()),
        ..ListOptions::default()
    };
    let mut events = cluster.registry.watch(&context(), &d, &here(), &options).await.unwrap();
    cluster.merge("configmaps", "a", json!({"metadata": {"labels": {"on": "1"}}})).await.unwrap();
    cluster.merge("configmaps", "a", json!({"data": {"x": "y"}})).await.unwrap();
    cluster.merge("configmaps", "b", json!({"data": {"x": "y"}})).await.unwrap();
    let last = cluster.merge("configmaps", "a", json!({"metadata": {"labels": {"on": null}}})).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(events.next().await.unwrap());
    }
    let words: Vec<_> = seen.iter().map(shown).collect();
    assert_eq!(words, [("ADDED", "a".into()), ("MODIFIED", "a".into()), ("DELETED", "a".into())]);
    let WatchItem::Deleted(gone) = &seen[2] else { unreachable!() };
    assert_eq!(json!(gone.resource_version.to_string()), last["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_list_ends_its_beginning_with_an_annotated_bookmark() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a", "b"]).await;
    let d = cluster.kind("configmaps");
    let options = ListOptions {
        send_initial_events: Some(true),
        resource_version_match: Some("NotOlderThan".into()),
        allow_watch_bookmarks: true,
        ..ListOptions::default()
    };
    let events = cluster.registry.watch(&context(), &d, &here(), &options).await.unwrap();
    let first: Vec<WatchItem> = events.take(3).collect().await;
    let words: Vec<_> = first.iter().map(shown).collect();
    assert_eq!(words, [("ADDED", "a".into()), ("ADDED", "b".into()), ("BOOKMARK", String::new())]);
    let WatchItem::Bookmark(mark) = &first[2] else { unreachable!() };
    assert_eq!(mark.value()["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let bad = ListOptions { send_initial_events: Some(true), ..ListOptions::default() };
    assert_eq!(cluster.registry.watch(&context(), &d, &here(), &bad).await.err().unwrap().code, 422);
}
