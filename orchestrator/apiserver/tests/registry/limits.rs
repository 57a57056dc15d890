//! LimitRanges: what pods and claims of their namespace get and may ask for.

use serde_json::{Value, json};

use crate::cluster::{Cluster, pod};

async fn with_limits(items: Value) -> Cluster {
    let cluster = Cluster::start().await.with_account().await;
    let range = json!({"metadata": {"name": "bounds"}, "spec": {"limits": items}});
    cluster.create("limitranges", range).await.unwrap();
    cluster
}

fn asking(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

#[tokio::test]
async fn a_pod_gets_what_it_does_not_say_and_is_of_the_class_that_follows() {
    let cluster = with_limits(json!([{
        "type": "Container",
        "default": {"cpu": "500m", "memory": "512Mi"},
        "defaultRequest": {"cpu": "0.1"},
        "min": {"memory": "16Mi"},
    }]))
    .await;
    let made = cluster.create("pods", asking("p", json!({"requests": {"memory": "32Mi"}}))).await.unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}})
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let note = &made["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert!(note.as_str().is_some_and(|it| it.starts_with("LimitRanger plugin set: cpu request")), "{note}");
    let all = json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}}]);
    let made = with_limits(all).await.create("pods", pod("p")).await.unwrap();
    assert_eq!(made["status"]["qosClass"], "Guaranteed", "requests follow limits by default");
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused_with_all_that_is_wrong() {
    let cluster = with_limits(json!([
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"}},
        {"type": "Pod", "max": {"memory": "1Gi"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]))
    .await;
    let wanted = json!({"requests": {"cpu": "1m"}, "limits": {"memory": "2Gi"}});
    let refused = cluster.create("pods", asking("p", wanted)).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
    assert_eq!(
        refused.message,
        "pods \"p\" is forbidden: [minimum cpu usage per Container is 100m, but request is 1m, \
         maximum memory usage per Container is 1Gi, but limit is 2Gi, maximum memory usage per Pod is 1Gi, but limit is 2Gi]"
    );
    let within = json!({"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}});
    cluster.create("pods", asking("p", within)).await.unwrap();

    let claim = |storage: &str| {
        json!({"metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}},
        }})
    };
    let refused = cluster.create("persistentvolumeclaims", claim("2Gi")).await.unwrap_err();
    assert_eq!(
        refused.message,
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
    );
    cluster.create("persistentvolumeclaims", claim("1Gi")).await.unwrap();
}
