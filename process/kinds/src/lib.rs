//! What serde and kube make of Kubernetes' kinds, compiled once.
//!
//! Reading, writing, listing and watching a kind are thousands of generic functions. Rust compiles one where a crate first
//! uses it with a type, and a crate above that takes the one there is. Left alone, each of our crates compiled its own for a
//! Pod: two thirds of what the controllers were. A crate that speaks of these kinds says `use penstock_kinds as _;`.
//!
//! Nothing here runs, and nothing depends on it being complete: a kind that is missing costs the time of a build.

use std::fmt::Debug;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;

use futures::Stream;
use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is compiled: a function a kind, never called.
pub static COMPILED: &[fn(&Client, &str)] = &[
    whole::<apps::ControllerRevision>,
    whole::<apps::DaemonSet>,
    whole::<apps::Deployment>,
    whole::<apps::ReplicaSet>,
    whole::<apps::StatefulSet>,
    whole::<batch::CronJob>,
    whole::<batch::Job>,
    whole::<certificates::CertificateSigningRequest>,
    whole::<coordination::Lease>,
    whole::<core::ConfigMap>,
    whole::<core::Endpoints>,
    whole::<core::Event>,
    whole::<core::Namespace>,
    whole::<core::Node>,
    whole::<core::PersistentVolume>,
    whole::<core::PersistentVolumeClaim>,
    whole::<core::Pod>,
    whole::<core::ReplicationController>,
    whole::<core::ResourceQuota>,
    whole::<core::Secret>,
    whole::<core::Service>,
    whole::<core::ServiceAccount>,
    whole::<discovery::EndpointSlice>,
    whole::<networking::Ingress>,
    whole::<networking::IngressClass>,
    whole::<node::RuntimeClass>,
    whole::<policy::PodDisruptionBudget>,
    whole::<rbac::ClusterRole>,
    whole::<scheduling::PriorityClass>,
    whole::<storage::CSINode>,
    whole::<storage::StorageClass>,
    written::<authentication::TokenReview>,
    written::<authorization::SubjectAccessReview>,
];

/// A kind that is watched and written.
fn whole<K>(client: &Client, text: &str)
where
    K: Resource<DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + PartialEq
        + Default
        + Send
        + Sync
        + 'static,
{
    written::<K>(client, text);
    let api = Api::<K>::all_with(client.clone(), &());
    let patch = Patch::Merge(&serde_json::Value::Null);
    of_one(api.get(""));
    of_one(api.get_opt(""));
    of_one(api.replace("", &PostParams::default(), &K::default()));
    of_one(api.patch("", &PatchParams::default(), &patch));
    of_one(api.patch_status("", &PatchParams::default(), &patch));
    of_one(api.delete("", &DeleteParams::default()));
    of_one(api.list(&ListParams::default()));
    let stream = watcher::watcher(api.clone(), watcher::Config::default());
    let stream: Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<K>>> + Send>> = Box::pin(stream);
    drop(black_box(stream));
}

/// A kind that is created.
fn written<K>(client: &Client, text: &str)
where
    K: Resource<DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + PartialEq
        + Default
        + Send
        + Sync
        + 'static,
{
    let object = K::default();
    drop(black_box((serde_json::from_str::<K>(text), serde_json::to_vec(&object), object.clone() == object)));
    of_one(Api::<K>::all_with(client.clone(), &()).create(&PostParams::default(), &object));
}

/// The code of a future is compiled where it is boxed.
fn of_one<T>(future: impl Future<Output = T>) {
    let boxed: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(future);
    drop(black_box(boxed));
}
