//! The data plane, which may come late: loading it, trying again, handing it pods' links; and the proxy in user space that
//! stands in for it meanwhile.
//!
//! It exists so that a node whose kernel or object file is wrong still has pod addresses, routes, DNS and Services, and
//! says clearly what is missing. It must not know Services.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnetwork::IpNetwork;
use parking_lot::Mutex;
use penstock_dataplane::{
    CEILING, Dataplane, Inside, InsideRange, Lack, Limits, LoadOptions, Verdict, Wanted, plan_growth,
};
use penstock_fallback::Fallback;
use penstock_network::{HookError, Network, PodHooks, PodLink};
use penstock_observe::{Filter, Names, Show};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::condition::{Condition, Part};
use super::policies::Gate;
use super::proxy::{Kind, Proxy};
use crate::kernel;
use crate::options::{Run, ServiceProxy, Tc, Xdp};

/// Pause between attempts to load.
const RETRY_EVERY: Duration = Duration::from_secs(15);

/// How often it is looked whether maps become full that fill by traffic.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Pause after an attempt to grow that failed, for want of memory.
const GROW_AGAIN_AFTER: Duration = Duration::from_secs(300);

/// The data plane, once it is loaded, and who stands in for it.
#[derive(Default)]
pub struct Programs {
    dataplane: OnceLock<Arc<Dataplane>>,
    stand_in: OnceLock<Arc<Fallback>>,
    /// Cancelled when nobody has to stand in any more.
    relieved: CancellationToken,
    changed: Notify,
    /// Who sees to it that a pod has its policies before its first packet.
    gate: OnceLock<Gate>,
    /// When growing failed.
    refused_at: Mutex<Option<Instant>>,
}

impl Programs {
    /// The data plane, if it is loaded.
    pub fn get(&self) -> Option<Arc<Dataplane>> {
        self.dataplane.get().cloned()
    }

    /// Who serves Services, if anybody.
    pub fn proxy(&self) -> Option<Proxy> {
        let stand_in = || self.stand_in.get().cloned().map(Proxy::Userspace);
        self.get().map(Proxy::Programs).or_else(stand_in)
    }

    /// Returns when somebody serves Services; when it was somebody already, when it is somebody else.
    pub async fn wait_for_other_than(&self, known: Option<Kind>) {
        loop {
            let changed = self.changed.notified();
            if self.proxy().is_some_and(|proxy| Some(proxy.kind()) != known) {
                return;
            }
            changed.await;
        }
    }

    /// Has pods wait at this gate before they start.
    pub fn guard(&self, gate: Gate) {
        let _ = self.gate.set(gate);
    }

    /// Returns when the data plane is loaded.
    pub async fn wait(&self) -> Arc<Dataplane> {
        loop {
            if let Some(dataplane) = self.get() {
                return dataplane;
            }
            self.wait_for_other_than(self.proxy().map(|proxy| proxy.kind())).await;
        }
    }

    /// Has the proxy in user space serve until the programs do. What is returned is cancelled then.
    pub fn stand_in(&self, fallback: Arc<Fallback>) -> CancellationToken {
        let _ = self.stand_in.set(fallback);
        self.changed.notify_waiters();
        self.relieved.clone()
    }

    /// Called when one of the two knows every Service: the other has nothing to do any more. Listeners and routes of the
    /// proxy go, those that an agent before this one left as well; or the programs that one left.
    pub async fn relieve_other_than(&self, kind: Kind, bpffs: &Path) {
        match kind {
            Kind::Programs => {
                let outcome = match self.stand_in.get() {
                    Some(fallback) => fallback.stop().await,
                    None => penstock_fallback::remove_routes().await.map(drop),
                };
                if let Err(error) = outcome {
                    tracing::warn!(
                        "routes of the userspace proxy are left: {:#}",
                        anyhow::Error::from(error)
                    );
                }
                // Only now: whoever reads that the node is whole again finds nothing of the proxy.
                self.relieved.cancel();
            }
            Kind::Userspace => match penstock_dataplane::detach(&bpffs.join(kernel::PIN_DIR)) {
                Ok(0) => {}
                Ok(programs) => {
                    tracing::warn!(programs, "programs of an earlier agent no longer serve Services")
                }
                Err(error) => {
                    tracing::warn!(
                        "programs of an earlier agent serve Services as it left them: {:#}",
                        anyhow::Error::from(error)
                    );
                }
            },
        }
    }

    /// Makes the maps larger that are nearly full. Whether it did: what found no room is to be said again then.
    pub async fn grow(&self) -> bool {
        let Some(dataplane) = self.get() else { return false };
        if self.refused_at.lock().is_some_and(|at| at.elapsed() < GROW_AGAIN_AFTER) {
            return false;
        }
        let growing = tokio::task::spawn_blocking(move || {
            dataplane.forget_idle_counts()?;
            let (now, fill) = (dataplane.limits(), dataplane.fill()?);
            let Some(next) = plan_growth(&now, &fill, &CEILING) else { return Ok(None) };
            tracing::info!(?fill, ?now, ?next, "maps are nearly full and become larger");
            dataplane.grow(&next).map(Some)
        });
        match growing.await.context("growing panicked").and_then(|grown| Ok(grown?)) {
            Ok(None) => false,
            Ok(Some(())) => true,
            Err(error) => {
                tracing::error!("maps that are nearly full could not become larger: {error:#}");
                *self.refused_at.lock() = Some(Instant::now());
                false
            }
        }
    }

    /// Tries to load it, and says in the node's condition how that went. Returns what went wrong.
    pub async fn load(&self, options: &Run, uplink: u32, condition: &Condition) -> Result<(), String> {
        let (plan, stands_in) = (options.clone(), options.service_proxy == ServiceProxy::Auto);
        let loaded = tokio::task::spawn_blocking(move || load(&plan, uplink)).await;
        match loaded.context("loading panicked").and_then(|loaded| loaded) {
            Ok(dataplane) => {
                let tc = dataplane.tc().name();
                if options.log_drops {
                    let pins = options.bpffs.join(kernel::PIN_DIR);
                    std::thread::spawn(move || log_drops(&pins));
                }
                let lacks: Vec<_> = dataplane.lacks().into_iter().map(Lack::text).collect();
                lacks.iter().for_each(|lack| tracing::warn!("this kernel has {lack}"));
                condition.set_lacks(lacks);
                let _ = self.dataplane.set(Arc::new(dataplane));
                self.changed.notify_waiters();
                condition.set(Part::Dataplane, Ok(()));
                tracing::info!(tc, "the eBPF programs are attached");
                Ok(())
            }
            Err(error) => {
                let message = format!("{error:#}");
                // With somebody who stands in, the node's network is degraded, not unavailable.
                let outcome = if stands_in { Ok(()) } else { Err(message.clone()) };
                if condition.set(Part::Dataplane, outcome) {
                    tracing::error!("the eBPF programs do not serve Services on this node: {message}");
                }
                Err(message)
            }
        }
    }
}

impl PodHooks for Programs {
    fn attach(&self, link: &PodLink) -> Result<(), HookError> {
        // Without programs a pod has its network, only no Services; `retry` attaches what it missed.
        let Some(dataplane) = self.get() else { return Ok(()) };
        // A pod whose incoming traffic is limited is reached through its link's queue, not past it.
        let reached_directly = if link.is_shaped { Vec::new() } else { link.addresses.clone() };
        let pod = penstock_dataplane::PodLink {
            ifindex: link.ifindex,
            addresses: reached_directly,
            pod_mac: link.pod_mac,
        };
        dataplane.attach_pod(&pod).map_err(failed)?;
        match self.gate.get() {
            Some(gate) => gate.admit(link).map_err(|message| HookError { message }),
            None => Ok(()),
        }
    }

    fn detach(&self, link: &PodLink) -> Result<(), HookError> {
        let Some(dataplane) = self.get() else { return Ok(()) };
        if let Some(gate) = self.gate.get() {
            gate.forget(link.ifindex);
        }
        dataplane.detach_pod(link.ifindex).map_err(failed)
    }
}

/// Tries until it is loaded, then attaches the links that were made before, and has maps grow that fill by traffic.
pub async fn retry(
    programs: Arc<Programs>,
    network: Arc<Network>,
    options: Run,
    uplink: u32,
    condition: Condition,
) {
    if programs.get().is_none() && options.service_proxy != ServiceProxy::Userspace {
        loop {
            tokio::time::sleep(RETRY_EVERY).await;
            if programs.load(&options, uplink, &condition).await.is_ok() {
                break;
            }
        }
        network.attach_all().await;
        if let Some(gate) = programs.gate.get() {
            gate.all_came().await;
        }
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        programs.grow().await;
    }
}

fn load(options: &Run, uplink: u32) -> anyhow::Result<Dataplane> {
    kernel::ensure_bpffs(&options.bpffs)?;
    let cgroup_v2 = kernel::ensure_cgroup(&options.cgroup_parent)?;
    let object = options.ebpf_object.clone().unwrap_or_else(|| Run::beside("penstock.bpf.o"));
    let options = LoadOptions {
        object,
        bpffs: options.bpffs.join(kernel::PIN_DIR),
        cgroup_v2,
        uplink_ifindex: Some(uplink),
        node_ips: options.node_ip.clone(),
        services: options.service_proxy != ServiceProxy::None,
        xdp: match options.xdp {
            Xdp::Auto => penstock_dataplane::Xdp::Auto,
            Xdp::Native => penstock_dataplane::Xdp::Native,
            Xdp::Generic => penstock_dataplane::Xdp::Generic,
            Xdp::Off => penstock_dataplane::Xdp::Off,
        },
        tc: match options.tc {
            Tc::Auto => penstock_dataplane::Tc::Auto,
            Tc::Links => penstock_dataplane::Tc::Links,
            Tc::Classifiers => penstock_dataplane::Tc::Classifiers,
        },
        inside: inside(options),
        masquerade: options.masquerade,
        limits: Limits {
            services_max: options.services_max,
            vips_max: options.service_addresses_max,
            ..Limits::default()
        },
        conversions: penstock_dataplane::CONVERSIONS,
    };
    Ok(Dataplane::load(options)?)
}

/// The ranges to which pods' packets go with their own addresses.
fn inside(options: &Run) -> Vec<InsideRange> {
    let range = |cidr: IpNetwork, of| InsideRange { address: cidr.network(), prefix: cidr.prefix(), of };
    let pods = options.cluster_cidr.iter().map(|cidr| range(*cidr, Inside::Pods));
    let services = options.service_cidr.iter().map(|cidr| range(*cidr, Inside::Services));
    pods.chain(services)
        .chain(options.non_masquerade_cidr.iter().map(|cidr| range(*cidr, Inside::Neighbours)))
        .collect()
}

/// Logs dropped packets as the programs tell of them, until the process ends.
fn log_drops(pins: &Path) {
    let show = Show {
        wanted: Wanted { verdicts: vec![Verdict::Dropped], sample: 0 },
        filter: Filter::default(),
        json: false,
        last: None,
        count: None,
    };
    let (names, never) = (RwLock::new(Names::default()), AtomicBool::new(false));
    let (mut out, mut complaints) = (LogLines::default(), LogLines::default());
    let outcome = penstock_observe::observe(pins, &show, &names, &never, &mut out, &mut complaints);
    if let Err(error) = outcome {
        tracing::error!("dropped packets are counted but not logged: {:#}", anyhow::Error::from(error));
    }
}

/// Logs each line written to it.
#[derive(Default)]
struct LogLines(Vec<u8>);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            tracing::info!(target: "penstock::drops", "{}", String::from_utf8_lossy(&line).trim_end());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failed(error: penstock_dataplane::DataplaneError) -> HookError {
    HookError { message: format!("{:#}", anyhow::Error::from(error)) }
}
