//! What `run` was asked for, checked: every combination that cannot work is refused here, before anything starts.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use penstock_apiserver::audit::LogConfig;

use crate::cli::access::AccessArguments;
use crate::cli::{Component, RunArguments, StoreKind};

/// The DNS Service's place in the service range.
const DNS_OFFSET: u128 = 10;
/// Where the API server listens unless told otherwise.
const PORT: u16 = 6443;
/// Smaller service ranges than this leave no room for services.
const SERVICE_PREFIX_V4_MAX: u8 = 28;
const SERVICE_PREFIX_V6_MAX: u8 = 124;

/// What each node gets of the cluster's ranges (`NodeRanges::new` of the controllers).
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

/// Why the command line cannot be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("--components names nothing to run")]
    NoComponents,
    #[error("the API server needs --advertise-address, the address nodes and clients reach it at")]
    NoAdvertiseAddress,
    #[error("--advertise-address {address} is not an address others can reach")]
    UnusableAdvertiseAddress { address: IpAddr },
    #[error("without the API server among --components, --kubeconfig must say which one to use")]
    NoKubeconfig,
    #[error("--kubeconfig is for running without the API server; here the loops use the one in this process")]
    NeedlessKubeconfig,
    #[error("--service-cidr {range} is too small; use at least 16 addresses")]
    ServiceRangeTooSmall { range: IpNetwork },
    #[error("--cluster-cidr {range} is too small; a node gets a /{node_prefix} of it")]
    ClusterRangeTooSmall { range: IpNetwork, node_prefix: u8 },
    #[error("{option} takes one range, or one of IPv4 and one of IPv6")]
    FamilyTwice { option: &'static str },
    #[error("--service-cidr has {services} and --cluster-cidr {pods}; both need ranges of the same families")]
    FamiliesDiffer { services: &'static str, pods: &'static str },
    #[error("--cluster-dns {address} is not in a service range, or its range has another already")]
    DnsOutsideRange { address: IpAddr },
    #[error("--cluster-dns {address} is the kubernetes Service's own address")]
    DnsTaken { address: IpAddr },
    #[error("--service-cidr {services} and --cluster-cidr {pods} overlap")]
    RangesOverlap { services: IpNetwork, pods: IpNetwork },
    #[error("--load-balancer-pools is for the controllers, which are not among --components")]
    NeedlessPools,
    #[error("--load-balancer-pools {pool} and {option} {range} overlap")]
    PoolOverlaps { pool: IpNetwork, option: &'static str, range: IpNetwork },
    #[error("--load-balancer-pools {pool} holds the API server's own address, {address}")]
    PoolHoldsServer { pool: IpNetwork, address: IpAddr },
    #[error("{name:?} is not a DNS name")]
    NotADomain { name: String },
}

/// A run that makes sense.
#[derive(Debug)]
pub struct RunConfig {
    pub data_dir: PathBuf,
    pub server: Option<Arc<ServerPart>>,
    pub controllers: bool,
    pub scheduler: bool,
    /// How long certificates live that are signed by request.
    pub signing_duration: Duration,
    /// Present exactly when `server` is not.
    pub kubeconfig: Option<PathBuf>,
    /// At most one a family.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Addresses for Services of type LoadBalancer; none overlaps another or a range of the cluster.
    pub load_balancer_pools: Vec<IpNetwork>,
}

/// What concerns the API server only.
#[derive(Debug)]
pub struct ServerPart {
    pub listen: SocketAddr,
    pub advertise_address: IpAddr,
    /// At most one a family, the default one first.
    pub service_cidrs: Vec<IpNetwork>,
    pub kubernetes_address: IpAddr,
    /// One for each service range, in their order.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub store: StoreKind,
    pub etcd_endpoints: Vec<String>,
    /// What the embedded store may grow to.
    pub store_bytes_max: u64,
    pub extra_names: Vec<String>,
    /// How long the server's own certificates live.
    pub certificate_life: Duration,
    pub access: AccessArguments,
    pub audit: Option<AuditFiles>,
    pub load: Load,
}

/// How much the server takes on at once.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub priority_and_fairness: bool,
    pub requests_max: u32,
    pub mutating_requests_max: u32,
    pub connections_max: u32,
    pub watches_max: u32,
    pub shutdown_delay: Duration,
}

/// What is noted of requests, and where.
#[derive(Debug)]
pub struct AuditFiles {
    pub policy: PathBuf,
    pub log: LogConfig,
}

// === impl RunConfig ===

impl RunConfig {
    /// Checks the arguments against each other.
    pub fn new(arguments: RunArguments) -> Result<Self, ConfigError> {
        let has = |component| arguments.components.contains(&component);
        if arguments.components.is_empty() {
            return Err(ConfigError::NoComponents);
        }
        let (controllers, scheduler) = (has(Component::Controllers), has(Component::Scheduler));
        let with_server = has(Component::Apiserver);
        match (&arguments.kubeconfig, with_server) {
            (None, false) => return Err(ConfigError::NoKubeconfig),
            (Some(_), true) => return Err(ConfigError::NeedlessKubeconfig),
            _ => {}
        }
        check_pools(&arguments, controllers)?;
        check_families("--cluster-cidr", &arguments.cluster_cidr)?;
        for range in &arguments.cluster_cidr {
            let node_prefix = if range.is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 };
            if range.prefix() > node_prefix {
                return Err(ConfigError::ClusterRangeTooSmall { range: *range, node_prefix });
            }
        }
        Ok(Self {
            data_dir: arguments.data_dir.clone(),
            controllers,
            scheduler,
            signing_duration: arguments.cluster_signing_duration,
            kubeconfig: arguments.kubeconfig.clone(),
            cluster_cidrs: arguments.cluster_cidr.clone(),
            load_balancer_pools: arguments.load_balancer_pools.clone(),
            server: if with_server { Some(Arc::new(ServerPart::new(arguments)?)) } else { None },
        })
    }
}

// === impl ServerPart ===

impl ServerPart {
    fn new(arguments: RunArguments) -> Result<Self, ConfigError> {
        let advertise_address = arguments.advertise_address.ok_or(ConfigError::NoAdvertiseAddress)?;
        if advertise_address.is_unspecified() || advertise_address.is_multicast() {
            return Err(ConfigError::UnusableAdvertiseAddress { address: advertise_address });
        }
        let ranges = arguments.service_cidr;
        check_families("--service-cidr", &ranges)?;
        let (services, pods) = (families(&ranges), families(&arguments.cluster_cidr));
        if services != pods {
            return Err(ConfigError::FamiliesDiffer { services, pods });
        }
        for range in ranges.iter().copied() {
            let prefix_max = if range.is_ipv4() { SERVICE_PREFIX_V4_MAX } else { SERVICE_PREFIX_V6_MAX };
            if range.prefix() > prefix_max {
                return Err(ConfigError::ServiceRangeTooSmall { range });
            }
            if let Some(pods) = arguments.cluster_cidr.iter().copied().find(|pods| overlap(range, *pods)) {
                return Err(ConfigError::RangesOverlap { services: range, pods });
            }
        }
        let kubernetes_address = nth_address(ranges[0], 1);
        let cluster_dns = dns_addresses(&ranges, &arguments.cluster_dns)?;
        if !is_domain(&arguments.cluster_domain) {
            return Err(ConfigError::NotADomain { name: arguments.cluster_domain });
        }
        let wrong =
            arguments.extra_san.iter().find(|name| name.parse::<IpAddr>().is_err() && !is_domain(name));
        if let Some(name) = wrong {
            return Err(ConfigError::NotADomain { name: name.clone() });
        }
        // Neither is without the other, says the command line.
        let audit =
            arguments.audit_policy_file.zip(arguments.audit_log_path).map(|(policy, path)| AuditFiles {
                policy,
                log: LogConfig {
                    path,
                    size_max_mib: arguments.audit_log_maxsize,
                    kept_max: arguments.audit_log_maxbackup,
                    days_max: arguments.audit_log_maxage,
                },
            });
        let load = Load {
            priority_and_fairness: arguments.enable_priority_and_fairness,
            requests_max: arguments.max_requests_inflight,
            mutating_requests_max: arguments.max_mutating_requests_inflight,
            connections_max: arguments.max_connections,
            watches_max: arguments.max_watches,
            shutdown_delay: Duration::from_secs(arguments.shutdown_delay_seconds.into()),
        };
        Ok(Self {
            load,
            listen: arguments
                .listen
                .unwrap_or_else(|| SocketAddr::new(every_address(advertise_address), PORT)),
            advertise_address,
            service_cidrs: ranges,
            kubernetes_address,
            cluster_dns,
            cluster_domain: arguments.cluster_domain,
            store: arguments.store,
            etcd_endpoints: arguments.etcd_endpoints,
            store_bytes_max: arguments.store_quota << 20,
            extra_names: arguments.extra_san,
            certificate_life: arguments.certificate_validity_period,
            access: arguments.access,
            audit,
        })
    }

    /// Every name and address clients may know the API server by.
    pub fn serving_names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "::1"]
                .into_iter()
                .map(str::to_owned)
                .collect();
        names.insert(format!("kubernetes.default.svc.{}", self.cluster_domain));
        names.insert(self.advertise_address.to_string());
        names.insert(self.kubernetes_address.to_string());
        if !self.listen.ip().is_unspecified() {
            names.insert(self.listen.ip().to_string());
        }
        names.extend(self.extra_names.iter().cloned());
        names
    }

    /// The URL an administrator on any machine can use.
    pub fn url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.advertise_address, self.listen.port()))
    }
}

/// Checks that no address of a load-balancer pool could mean something else too.
fn check_pools(arguments: &RunArguments, controllers: bool) -> Result<(), ConfigError> {
    let pools = &arguments.load_balancer_pools;
    if !pools.is_empty() && !controllers {
        return Err(ConfigError::NeedlessPools);
    }
    for (at, pool) in pools.iter().enumerate() {
        let services = arguments.service_cidr.iter().map(|range| ("--service-cidr", *range));
        let pods = arguments.cluster_cidr.iter().map(|range| ("--cluster-cidr", *range));
        let others = pools[..at].iter().map(|other| ("--load-balancer-pools", *other));
        if let Some((option, range)) = services.chain(pods).chain(others).find(|(_, r)| overlap(*pool, *r)) {
            return Err(ConfigError::PoolOverlaps { pool: *pool, option, range });
        }
        if let Some(address) = arguments.advertise_address.filter(|a| pool.contains(*a)) {
            return Err(ConfigError::PoolHoldsServer { pool: *pool, address });
        }
    }
    Ok(())
}

/// Every address of the machine. Of IPv6 it takes what comes over IPv4 too, but a machine need not have IPv6.
fn every_address(advertised: IpAddr) -> IpAddr {
    match advertised {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// One range, or one of each family.
fn check_families(option: &'static str, ranges: &[IpNetwork]) -> Result<(), ConfigError> {
    match ranges {
        [_] => Ok(()),
        [a, b] if a.is_ipv4() != b.is_ipv4() => Ok(()),
        _ => Err(ConfigError::FamilyTwice { option }),
    }
}

fn families(ranges: &[IpNetwork]) -> &'static str {
    match ranges {
        [one] if one.is_ipv4() => "IPv4",
        [_] => "IPv6",
        _ => "IPv4 and IPv6",
    }
}

/// The DNS address of each range: the one asked for, or the tenth.
fn dns_addresses(ranges: &[IpNetwork], asked: &[IpAddr]) -> Result<Vec<IpAddr>, ConfigError> {
    let mut left = asked.to_vec();
    let mut addresses = Vec::new();
    for range in ranges {
        let address = match left.iter().position(|address| range.contains(*address)) {
            Some(at) => left.remove(at),
            None => nth_address(*range, DNS_OFFSET),
        };
        if address == nth_address(*range, 1) {
            return Err(ConfigError::DnsTaken { address });
        }
        addresses.push(address);
    }
    match left.first() {
        Some(address) => Err(ConfigError::DnsOutsideRange { address: *address }),
        None => Ok(addresses),
    }
}

/// Whether two ranges share an address.
fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// The address `offset` places after the network's.
fn nth_address(range: IpNetwork, offset: u128) -> IpAddr {
    match range.network() {
        // The offset is small and the range was checked to hold it.
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + offset as u32).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + offset).into()),
    }
}

/// Whether this is a DNS name: labels of letters, digits and inner hyphens.
pub fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config(words: &[&str]) -> Result<RunConfig, ConfigError> {
        let cli = Cli::parse_from(["orchestrator", "run", "--data-dir=/d"].iter().chain(words));
        let Command::Run(arguments) = cli.command else { panic!("{cli:?}") };
        RunConfig::new(*arguments)
    }

    fn server(words: &[&str]) -> Arc<ServerPart> {
        config(&[&["--advertise-address=10.240.0.1"], words].concat()).unwrap().server.unwrap()
    }

    #[test]
    fn addresses_of_the_service_range_follow_from_it() {
        let v4 = server(&[]);
        assert_eq!(
            (v4.kubernetes_address.to_string(), v4.cluster_dns[0].to_string()),
            ("10.96.0.1".into(), "10.96.0.10".into())
        );
        let v6 = server(&["--service-cidr=fd00:1::/112", "--cluster-cidr=fd00:2::/48"]);
        assert_eq!(
            (v6.kubernetes_address.to_string(), v6.cluster_dns[0].to_string()),
            ("fd00:1::1".into(), "fd00:1::a".into())
        );
        let dual = server(&[
            "--service-cidr=10.96.0.0/16,fd00:1::/112",
            "--cluster-cidr=fd00:2::/56,10.244.0.0/16",
            "--cluster-dns=fd00:1::53",
        ]);
        assert_eq!(dual.kubernetes_address.to_string(), "10.96.0.1");
        assert_eq!(dual.cluster_dns, ["10.96.0.10", "fd00:1::53"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn a_server_of_ipv6_listens_there_and_is_known_by_an_address_in_brackets() {
        assert_eq!(server(&[]).listen.to_string(), "0.0.0.0:6443");
        let ranges = ["--service-cidr=fd00:1::/112", "--cluster-cidr=fd00:2::/48"];
        let words = [&["--advertise-address=fd00:240::1"], &ranges[..]].concat();
        let v6 = config(&words).unwrap().server.unwrap();
        assert_eq!(v6.listen.to_string(), "[::]:6443");
        assert_eq!(v6.url(), "https://[fd00:240::1]:6443");
        assert!(v6.serving_names().contains("fd00:240::1") && v6.serving_names().contains("fd00:1::1"));
    }

    #[test]
    fn the_certificate_names_every_way_to_the_server() {
        let names =
            server(&["--extra-san=api.example.org,192.0.2.1", "--listen=10.1.2.3:7443"]).serving_names();
        for name in [
            "kubernetes.default.svc.cluster.local",
            "10.96.0.1",
            "10.240.0.1",
            "api.example.org",
            "192.0.2.1",
            "10.1.2.3",
            "::1",
        ] {
            assert!(names.contains(name), "{name} is missing from {names:?}");
        }
    }

    #[test]
    fn the_loops_alone_need_to_know_an_api_server() {
        assert_eq!(config(&["--components=scheduler"]).unwrap_err(), ConfigError::NoKubeconfig);
        let loops = config(&["--components=scheduler", "--kubeconfig=/k"]).unwrap();
        assert!(loops.server.is_none() && loops.scheduler && !loops.controllers);
    }

    #[test]
    fn load_balancer_pools_stand_apart_from_every_other_range() {
        let run = |words: &[&str]| config(&[&["--advertise-address=10.240.0.1"], words].concat());
        let pools = run(&["--load-balancer-pools=10.240.0.192/27,192.0.2.0/28"]).unwrap().load_balancer_pools;
        assert_eq!(pools.len(), 2);
        let refused = |pools: &str| run(&[&format!("--load-balancer-pools={pools}")]).unwrap_err();
        for pools in ["10.96.1.0/24", "10.244.0.0/12", "192.0.2.0/24,192.0.2.16/28"] {
            assert!(matches!(refused(pools), ConfigError::PoolOverlaps { .. }), "{pools}");
        }
        assert!(matches!(refused("10.240.0.0/24"), ConfigError::PoolHoldsServer { .. }));
        let server_only = run(&["--components=apiserver", "--load-balancer-pools=192.0.2.0/28"]);
        assert_eq!(server_only.unwrap_err(), ConfigError::NeedlessPools);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let refused =
            |words: &[&str]| config(&[&["--advertise-address=10.0.0.1"], words].concat()).unwrap_err();
        assert_eq!(config(&[]).unwrap_err(), ConfigError::NoAdvertiseAddress);
        assert_eq!(refused(&["--kubeconfig=/k"]), ConfigError::NeedlessKubeconfig);
        assert!(matches!(
            refused(&["--service-cidr=10.96.0.0/30"]),
            ConfigError::ServiceRangeTooSmall { .. }
        ));
        assert!(matches!(refused(&["--cluster-dns=10.97.0.10"]), ConfigError::DnsOutsideRange { .. }));
        assert!(matches!(refused(&["--cluster-dns=10.96.0.1"]), ConfigError::DnsTaken { .. }));
        assert!(matches!(refused(&["--cluster-cidr=10.0.0.0/8"]), ConfigError::RangesOverlap { .. }));
        let two = refused(&["--service-cidr=10.96.0.0/16,10.97.0.0/16"]);
        assert!(matches!(two, ConfigError::FamilyTwice { option: "--service-cidr" }));
        let other = refused(&["--service-cidr=10.96.0.0/16,fd00:1::/112"]);
        assert!(matches!(other, ConfigError::FamiliesDiffer { .. }));
        let small = refused(&["--cluster-cidr=10.244.0.0/25"]);
        assert!(matches!(small, ConfigError::ClusterRangeTooSmall { node_prefix: 24, .. }));
        assert!(matches!(refused(&["--extra-san=-bad-"]), ConfigError::NotADomain { .. }));
        assert!(matches!(refused(&["--cluster-domain=a..b"]), ConfigError::NotADomain { .. }));
        let unusable = config(&["--advertise-address=0.0.0.0"]).unwrap_err();
        assert!(matches!(unusable, ConfigError::UnusableAdvertiseAddress { .. }));
    }
}
