//! Binds claims to volumes, keeps the phases of both, and asks provisioners for what is not there.
//!
//! A binding is two writes, the volume's claim first. Whatever is found half done is finished; no order of crashes leaves
//! a volume with two claims, because the volume's resource version decides who gets it.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::identity::object_reference;
use penstock_informers::volumes::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA, class_of_claim,
    is_kept_for, volume_name,
};
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use super::claims::{self, Said, plan_claim};
use super::reclaim::{self, plan_volume};
use crate::context::Context;

/// One half of a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Half {
    Claim(Key),
    Volume(String),
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(WorkQueue::new());
    let controller = Arc::new(Controller {
        client: context.client(),
        recorder: context.recorder("persistentvolume-controller"),
        claims: context.informers.cache(),
        volumes: context.informers.cache(),
        classes: context.informers.cache(),
        queue: queue.clone(),
    });
    tokio::join!(
        controller.claims.wait_synced(),
        controller.volumes.wait_synced(),
        controller.classes.wait_synced(),
    );
    let adder = queue.clone();
    controller.claims.subscribe(move |delta| {
        let claim = delta.object();
        adder.add(Half::Claim(claim.key()));
        if let Some(volume) = volume_name(claim) {
            adder.add(Half::Volume(volume.to_owned()));
        }
    });
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.volumes.subscribe(move |delta| {
        let volume = delta.object();
        adder.add(Half::Volume(volume.name().to_owned()));
        match volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
            Some(kept) => {
                adder.add(Half::Claim(key_of(kept)));
            }
            // It may be what somebody waits for.
            None => handler
                .ask_unbound(&adder, |claim| volume_name(claim).is_none_or(|name| name == volume.name())),
        }
    });
    let (adder, handler) = (queue.clone(), controller.clone());
    controller.classes.subscribe(move |delta| {
        let class = delta.object();
        handler.ask_unbound(&adder, |claim| class_of_claim(claim) == class.name());
    });
    // One worker: two claims never look at one free volume at the same time.
    run_workers(controller, queue, 1, context.shutdown).await;
}

struct Controller {
    client: Client,
    recorder: Recorder,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
    classes: Arc<Cache<StorageClass>>,
    queue: Arc<WorkQueue<Half>>,
}

impl Reconcile for Controller {
    type Key = Half;
    const NAME: &'static str = "persistent-volume-binder";

    async fn reconcile(&self, half: &Half) -> Result<Next, Failure> {
        match half {
            Half::Claim(key) => {
                if let Some(claim) = self.claims.get(key) {
                    self.look_at_claim(&claim).await?;
                }
            }
            Half::Volume(name) => {
                if let Some(volume) = self.volumes.get(&Key::new("", name.as_str())) {
                    self.look_at_volume(&volume).await?;
                }
            }
        }
        Ok(Next::Done)
    }
}

impl Controller {
    fn ask_unbound(&self, queue: &WorkQueue<Half>, is_concerned: impl Fn(&PersistentVolumeClaim) -> bool) {
        for claim in self.claims.list() {
            if claim.annotation(BIND_COMPLETED).is_none() && is_concerned(&claim) {
                queue.add(Half::Claim(claim.key()));
            }
        }
    }

    // === Claims ===

    async fn look_at_claim(&self, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
        let named = volume_name(claim).and_then(|name| self.volumes.get(&Key::new("", name)));
        let class = self.classes.get(&Key::new("", class_of_claim(claim)));
        match plan_claim(claim, named.as_ref(), class.as_deref(), &self.volumes.list()) {
            claims::Step::Bind(volume) => self.bind(claim, &volume).await,
            claims::Step::Pend(said) => self.put_claim_phase(claim, "Pending", said).await,
            claims::Step::Provision(who) => self.ask_provisioner(claim, &who).await,
            claims::Step::Lose(said) => {
                // The volume may only be newer than what is known here.
                if let Some(name) = volume_name(claim)
                    && named.is_none()
                    && let Some(there) = self
                        .volumes()
                        .get_opt(name)
                        .await
                        .during(|| format!("looking for volume {name} of claim {}", claim.key()))?
                {
                    return self.bind_if_kept(claim, &there).await;
                }
                self.put_claim_phase(claim, "Lost", Some(said)).await
            }
        }
    }

    async fn bind_if_kept(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), Failure> {
        if is_kept_for(volume, claim) { self.bind(claim, volume).await } else { Ok(()) }
    }

    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Failure> {
        let volume = self.keep_for(volume, claim).await?;
        let volume = self.put_volume_phase(&volume, "Bound", None).await?;
        let claim = self.point_at(claim, volume.name()).await?;
        let (has, mut status) = (volume.spec.unwrap_or_default(), claim.status.clone().unwrap_or_default());
        status.phase = Some("Bound".to_owned());
        status.access_modes = has.access_modes;
        // A bound claim's capacity is its storage driver's, which may have grown it.
        if status.capacity.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
            status.capacity = has.capacity;
        }
        if claim.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let bound = PersistentVolumeClaim { status: Some(status), ..claim };
        let replaced =
            self.claims_of(&bound).replace_status(bound.name(), &PostParams::default(), &bound).await;
        gone_is_fine(replaced).during(|| format!("noting that claim {} is bound", bound.key()))?;
        Ok(())
    }

    /// Keeps the volume for this very claim.
    async fn keep_for(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<PersistentVolume, Failure> {
        let kept = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        if kept.is_some_and(|kept| kept.uid.as_deref() == Some(claim.uid_str())) {
            return Ok(volume.clone());
        }
        let mut changed = volume.clone();
        if kept.is_none() {
            annotate(&mut changed.metadata.annotations, BOUND_BY_CONTROLLER, "yes");
        }
        changed.spec.get_or_insert_default().claim_ref = Some(object_reference(claim));
        self.volumes()
            .replace(volume.name(), &PostParams::default(), &changed)
            .await
            .during(|| format!("keeping volume {} for claim {}", volume.name(), claim.key()))
    }

    /// Writes into the claim which volume is its own.
    async fn point_at(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &str,
    ) -> Result<PersistentVolumeClaim, Failure> {
        let mut changed = claim.clone();
        if volume_name(claim).is_none() {
            annotate(&mut changed.metadata.annotations, BOUND_BY_CONTROLLER, "yes");
            changed.spec.get_or_insert_default().volume_name = Some(volume.to_owned());
        }
        annotate(&mut changed.metadata.annotations, BIND_COMPLETED, "yes");
        if changed == *claim {
            return Ok(changed);
        }
        self.claims_of(claim)
            .replace(claim.name(), &PostParams::default(), &changed)
            .await
            .during(|| format!("binding claim {} to volume {volume}", claim.key()))
    }

    async fn ask_provisioner(&self, claim: &PersistentVolumeClaim, who: &str) -> Result<(), Failure> {
        let mut changed = claim.clone();
        for name in [STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA] {
            annotate(&mut changed.metadata.annotations, name, who);
        }
        if changed != *claim {
            let replaced =
                self.claims_of(claim).replace(claim.name(), &PostParams::default(), &changed).await;
            // The write's own event brings the claim back here.
            return gone_is_fine(replaced)
                .during(|| format!("asking {who} for a volume for claim {}", claim.key()))
                .map(drop);
        }
        let message = format!("provisioner {who} is asked for a volume; if none comes, see whether it runs");
        let said = Said { is_warning: false, reason: "ExternalProvisioning", message };
        self.put_claim_phase(claim, "Pending", Some(said)).await
    }

    async fn put_claim_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        said: Option<Said>,
    ) -> Result<(), Failure> {
        if let Some(Said { is_warning, reason, message }) = said {
            let kind = if is_warning { EventType::Warning } else { EventType::Normal };
            self.recorder.record(claim, kind, reason, message);
        }
        let mut changed = claim.clone();
        let status = changed.status.get_or_insert_default();
        if status.phase.as_deref() == Some(phase) {
            return Ok(());
        }
        status.phase = Some(phase.to_owned());
        let replaced =
            self.claims_of(claim).replace_status(claim.name(), &PostParams::default(), &changed).await;
        gone_is_fine(replaced).during(|| format!("putting claim {} into phase {phase}", claim.key()))?;
        Ok(())
    }

    // === Volumes ===

    async fn look_at_volume(&self, volume: &PersistentVolume) -> Result<(), Failure> {
        let claim = self.claim_of(volume).await?;
        match plan_volume(volume, claim.as_deref()) {
            reclaim::Step::Phase(phase) => self.put_volume_phase(volume, phase, None).await.map(drop),
            reclaim::Step::AskClaim(phase) => {
                self.put_volume_phase(volume, phase, None).await?;
                if let Some(kept) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
                    self.queue.add(Half::Claim(key_of(kept)));
                }
                Ok(())
            }
            reclaim::Step::Unbind => {
                let mut changed = volume.clone();
                changed.spec.get_or_insert_default().claim_ref = None;
                if let Some(annotations) = &mut changed.metadata.annotations {
                    annotations.remove(BOUND_BY_CONTROLLER);
                }
                let replaced = self.volumes().replace(volume.name(), &PostParams::default(), &changed).await;
                gone_is_fine(replaced).during(|| format!("freeing volume {}", volume.name())).map(drop)
            }
            reclaim::Step::Fail { reason, message } => {
                let is_known = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed");
                if !is_known {
                    self.recorder.record(volume, EventType::Warning, reason, message.clone());
                }
                self.put_volume_phase(volume, "Failed", Some(message)).await.map(drop)
            }
        }
    }

    /// The claim that the volume is kept for, if it is there with that UID.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, Failure> {
        let Some(kept) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return Ok(None) };
        let key = key_of(kept);
        let is_it = |claim: &PersistentVolumeClaim| kept.uid.as_deref() == Some(claim.uid_str());
        if let Some(claim) = self.claims.get(&key).filter(|claim| is_it(claim)) {
            return Ok(Some(claim));
        }
        if kept.uid.as_deref().is_none_or(str::is_empty) {
            return Ok(None);
        }
        // A volume that is released is lost to its claim: the claim may only be newer than what is known here.
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let there = api.get_opt(&key.name).await.during(|| format!("looking for claim {key}"))?;
        Ok(there.filter(is_it).map(Arc::new))
    }

    async fn put_volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<String>,
    ) -> Result<PersistentVolume, Failure> {
        let mut changed = volume.clone();
        let status = changed.status.get_or_insert_default();
        if status.phase.as_deref() == Some(phase) {
            return Ok(changed);
        }
        status.phase = Some(phase.to_owned());
        status.message = message;
        let replaced = self.volumes().replace_status(volume.name(), &PostParams::default(), &changed).await;
        replaced.during(|| format!("putting volume {} into phase {phase}", volume.name()))
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    fn claims_of(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), claim.ns())
    }
}

/// The claim that a volume is kept for.
fn key_of(kept: &ObjectReference) -> Key {
    Key::new(kept.namespace.clone().unwrap_or_default(), kept.name.clone().unwrap_or_default())
}

fn annotate(annotations: &mut Option<std::collections::BTreeMap<String, String>>, name: &str, value: &str) {
    annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}
