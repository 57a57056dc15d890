//! Facts about the machine: what it has, what runs it, and whether it runs short.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use penstock_runtime::Version;

use super::VERSION;
use crate::context::observe_disk;
use crate::fields::Allocatable;
use crate::ledger::Amounts;

/// Memory kept from pods for eviction to work with.
const MEMORY_RESERVED_BYTES: i64 = 100 << 20;
/// Thresholds of pressure, as other kubelets have them by default.
const MEMORY_LOW_BYTES: i64 = 100 << 20;
const DISK_LOW_PERCENT: u64 = 10;

/// CPU, memory and disk of this machine.
pub fn observe_allocatable(kubelet_dir: &Path) -> Allocatable {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Allocatable {
        cpu_milli: i64::try_from(cpus).unwrap_or(1) * 1000,
        memory_bytes: meminfo("MemTotal").unwrap_or(0),
        storage_bytes: observe_disk(kubelet_dir)
            .and_then(|(_, total)| i64::try_from(total).ok())
            .unwrap_or(0),
    }
}

fn meminfo(field: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.split(':').next() == Some(field))?;
    line.split_whitespace().nth(1)?.parse::<i64>().ok().map(|kib| kib * 1024)
}

/// What pods may ask for together.
pub fn compile_usable(node: &Allocatable) -> Amounts {
    Amounts { cpu_milli: node.cpu_milli, memory_bytes: (node.memory_bytes - MEMORY_RESERVED_BYTES).max(0) }
}

type List = BTreeMap<String, Quantity>;

/// Capacity and allocatable of the Node.
pub fn compile_capacity(node: &Allocatable, pods_max: u32) -> (List, List) {
    let list = |memory: i64, storage: i64| -> List {
        [
            ("cpu", format!("{}", node.cpu_milli / 1000)),
            ("memory", format!("{}Ki", memory / 1024)),
            ("ephemeral-storage", format!("{}Ki", storage / 1024)),
            ("pods", pods_max.to_string()),
            ("hugepages-1Gi", "0".to_string()),
            ("hugepages-2Mi", "0".to_string()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_string(), Quantity(v)))
        .collect()
    };
    let usable = compile_usable(node).memory_bytes;
    (list(node.memory_bytes, node.storage_bytes), list(usable, node.storage_bytes / 10 * 9))
}

/// Whether memory and disk run short.
pub fn observe_pressure(kubelet_dir: &Path) -> (bool, bool) {
    let memory = meminfo("MemAvailable").is_some_and(|free| free < MEMORY_LOW_BYTES);
    let disk = observe_disk(kubelet_dir).is_some_and(|(free, total)| free * 100 < total * DISK_LOW_PERCENT);
    (memory, disk)
}

/// `nodeInfo`.
pub fn observe_system(runtime: &Version) -> NodeSystemInfo {
    let file = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_string()).unwrap_or_default();
    let release = file("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    NodeSystemInfo {
        architecture: if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }.to_string(),
        boot_id: file("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kernel_version: file("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: VERSION.to_string(),
        machine_id: file("/etc/machine-id"),
        operating_system: "linux".to_string(),
        os_image: pretty.trim_matches('"').to_string(),
        system_uuid: file("/sys/class/dmi/id/product_uuid"),
        ..Default::default()
    }
}
