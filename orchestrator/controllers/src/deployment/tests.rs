//! A rollout played against a toy cluster: whatever the order in which pods become ready or die, the limits hold
//! and the rollout ends.

use super::limits::Limits;
use super::plan::{Change, Observed, plan};
use super::revision::{available, replicas};
use super::status::plan_status;
use super::*;
use k8s_openapi::api::apps::v1::{DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

fn template(image: &str) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..Default::default()
        }),
        spec: Some(PodSpec {
            containers: vec![Container { image: Some(image.into()), ..Default::default() }],
            ..Default::default()
        }),
    }
}

fn deployment(replicas: i32, surge: i32, unavailable: i32) -> Deployment {
    Deployment {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("ns".into()),
            uid: Some("d".into()),
            generation: Some(1),
            ..Default::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: LabelSelector {
                match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
                ..Default::default()
            },
            template: template("v1"),
            revision_history_limit: Some(2),
            progress_deadline_seconds: Some(600),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            ..Default::default()
        }),
        status: None,
    }
}

/// ReplicaSets whose controller works at once; readiness is up to the test.
struct Toy {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
}

impl Toy {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: Vec::new(), clock: 1000 }
    }

    fn observed(&self) -> Observed {
        Observed {
            deployment: Arc::new(self.deployment.clone()),
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            old_pods_running: false,
            now: Timestamp::from_second(self.clock).unwrap(),
        }
    }

    fn step(&mut self) -> bool {
        let observed = self.observed();
        let changes = plan(&observed);
        let moved = !changes.is_empty();
        let created = changes.iter().find_map(|c| match c {
            Change::Create(set) => Some(set.name().to_owned()),
            _ => None,
        });
        self.deployment.status = Some(plan_status(&observed, created.as_deref()).status);
        for change in changes {
            self.clock += 1;
            match change {
                Change::Create(mut set) => {
                    set.metadata.uid = Some(format!("uid-{}", self.clock));
                    set.metadata.creation_timestamp = Some(crate::pod::tests::time(self.clock));
                    set.status = Some(ReplicaSetStatus { replicas: replicas(&set), ..Default::default() });
                    self.sets.push(*set);
                }
                Change::Update(update) => {
                    let set = self.sets.iter_mut().find(|s| s.name() == update.name).unwrap();
                    set.metadata.annotations.get_or_insert_default().extend(update.annotations);
                    if let Some(to) = update.replicas {
                        set.spec.as_mut().unwrap().replicas = Some(to);
                        let ready = available(set).min(to);
                        let status = set.status.get_or_insert_default();
                        status.replicas = to;
                        status.available_replicas = Some(ready);
                        status.ready_replicas = Some(ready);
                    }
                }
                Change::Delete { name, .. } => self.sets.retain(|s| s.name() != name),
                Change::Revision(revision) => {
                    let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                    annotations.insert(revision::REVISION.into(), revision);
                }
            }
        }
        moved
    }

    fn set_available(&mut self, at: usize, count: i32) {
        let Some(set) = self.sets.get_mut(at) else { return };
        let count = count.clamp(0, replicas(set));
        let status = set.status.get_or_insert_default();
        status.available_replicas = Some(count);
        status.ready_replicas = Some(count);
    }

    fn all_ready(&mut self) {
        for at in 0..self.sets.len() {
            self.set_available(at, i32::MAX);
        }
    }

    /// Until nothing changes; all pods become ready at once.
    fn settle(&mut self) {
        for _ in 0..500 {
            self.all_ready();
            if !self.step() {
                return;
            }
        }
        panic!("the rollout does not end");
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(replicas).collect()
    }
}

#[test]
fn a_new_deployment_creates_one_set_of_full_size() {
    let mut toy = Toy::new(deployment(3, 1, 0));
    assert!(toy.step());
    assert_eq!(toy.sizes(), [3]);
    assert_eq!(toy.sets[0].annotation(revision::REVISION), Some("1"));
    toy.settle();
    assert_eq!(toy.deployment.annotation(revision::REVISION), Some("1"));
    let status = toy.deployment.status.as_ref().unwrap();
    assert_eq!((status.available_replicas, status.updated_replicas), (Some(3), Some(3)));
    let progress = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Progressing").unwrap();
    assert_eq!(progress.reason.as_deref(), Some("NewReplicaSetAvailable"));
}

#[test]
fn undo_reuses_the_old_set_with_a_new_revision() {
    let mut toy = Toy::new(deployment(3, 1, 1));
    toy.settle();
    toy.deployment.spec.as_mut().unwrap().template = template("v2");
    toy.settle();
    assert_eq!(toy.sizes(), [0, 3]);
    toy.deployment.spec.as_mut().unwrap().template = template("v1");
    toy.settle();
    assert_eq!(toy.sizes(), [3, 0]);
    assert_eq!(toy.sets[0].annotation(revision::REVISION), Some("3"));
    assert_eq!(toy.sets[0].annotation("deployment.kubernetes.io/revision-history"), Some("1"));
    assert_eq!(toy.deployment.annotation(revision::REVISION), Some("3"));
}

#[test]
fn history_beyond_the_limit_is_deleted_oldest_first() {
    let mut toy = Toy::new(deployment(1, 1, 0));
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        toy.deployment.spec.as_mut().unwrap().template = template(image);
        toy.settle();
    }
    let revisions: Vec<_> = toy.sets.iter().map(revision::revision).collect();
    assert_eq!(revisions, [3, 4, 5]);
}

#[test]
fn recreate_waits_until_no_old_pod_runs() {
    let mut toy = Toy::new(deployment(2, 0, 0));
    toy.settle();
    let spec = toy.deployment.spec.as_mut().unwrap();
    spec.strategy = Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    spec.template = template("v2");
    assert!(toy.step());
    assert_eq!(toy.sizes(), [0]);
    let mut observed = toy.observed();
    observed.old_pods_running = true;
    assert!(plan(&observed).is_empty());
    assert!(toy.step());
    assert_eq!(toy.sizes(), [0, 2]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut toy = Toy::new(deployment(2, 1, 0));
    toy.settle();
    let spec = toy.deployment.spec.as_mut().unwrap();
    spec.paused = Some(true);
    spec.template = template("v2");
    spec.replicas = Some(5);
    toy.settle();
    assert_eq!(toy.sizes(), [5]);
    toy.deployment.spec.as_mut().unwrap().paused = None;
    toy.settle();
    assert_eq!(toy.sizes(), [0, 5]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_proportions() {
    let mut toy = Toy::new(deployment(10, 3, 2));
    toy.settle();
    toy.deployment.spec.as_mut().unwrap().template = template("v2");
    // The new pods never become ready: the rollout stands at 8 old and 5 new.
    for _ in 0..10 {
        toy.step();
    }
    assert_eq!(toy.sizes(), [8, 5]);
    toy.deployment.spec.as_mut().unwrap().replicas = Some(15);
    toy.step();
    assert_eq!(toy.sizes(), [11, 7], "upstream's documented example of proportional scaling");
}

#[test]
fn a_rollout_that_stands_still_exceeds_its_deadline() {
    let mut toy = Toy::new(deployment(1, 1, 0));
    toy.step();
    toy.step();
    toy.clock += 601;
    toy.step();
    let conditions = toy.deployment.status.as_ref().unwrap().conditions.clone().unwrap();
    let progress = conditions.iter().find(|c| c.type_ == "Progressing").unwrap();
    assert_eq!(
        (progress.status.as_str(), progress.reason.as_deref()),
        ("False", Some("ProgressDeadlineExceeded"))
    );
    toy.settle();
    let conditions = toy.deployment.status.as_ref().unwrap().conditions.clone().unwrap();
    assert_eq!(conditions.iter().find(|c| c.type_ == "Progressing").unwrap().status, "True");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_rolling_update_never_crosses_its_limits(
        count in 1i32..12, surge in 0i32..6, unavailable in 0i32..6,
        events in proptest::collection::vec((0usize..3, 0i32..12, 0u8..8), 0..60),
    ) {
        let mut toy = Toy::new(deployment(count, surge, unavailable));
        toy.settle();
        let mut version = 2;
        toy.deployment.spec.as_mut().unwrap().template = template("v2");
        for (at, ready, what) in events {
            if what == 0 && version < 5 {
                version += 1;
                toy.deployment.spec.as_mut().unwrap().template = template(&format!("v{version}"));
            } else {
                // Pods only become ready here: what dies by itself is not the rollout's doing.
                let has = toy.sets.get(at).map_or(0, available);
                toy.set_available(at, ready.max(has));
            }
            let before: i32 = toy.sets.iter().map(available).sum();
            toy.step();
            let limits = Limits::of(toy.deployment.spec.as_ref().unwrap());
            let total: i32 = toy.sets.iter().map(replicas).sum();
            let serving: i32 = toy.sets.iter().map(available).sum();
            prop_assert!(total <= limits.replicas + limits.max_surge, "{total} pods");
            prop_assert!(serving >= limits.min_available().min(before), "{serving} of {before} serve");
        }
        toy.settle();
        let last = template(&format!("v{version}"));
        for set in &toy.sets {
            let current = revision::same_template(set.spec.as_ref().unwrap().template.as_ref().unwrap(), &last);
            prop_assert_eq!(replicas(set), if current { count } else { 0 });
        }
    }
}
