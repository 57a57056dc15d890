//! The command line, as data: what can be said, its defaults, and the help that follows from it.

pub mod access;
pub mod token;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, value_parser};
use ipnetwork::IpNetwork;

use access::{AccessArguments, duration};
use token::TokenCommand;

/// A hundred years.
const LIFE_MAX: Duration = Duration::from_secs(876_000 * 3600);

/// The Penstock control plane: API server, controllers and scheduler.
#[derive(Parser, Debug)]
#[command(name = "orchestrator", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the control plane, or some of its components.
    ///
    /// At the first start the data directory gets a certificate authority, keys, and an administrator's
    /// kubeconfig (admin.kubeconfig).
    Run(Box<RunArguments>),
    /// Write a kubeconfig signed by this cluster's certificate authority.
    Credentials {
        #[command(subcommand)]
        of: CredentialsOf,
    },
    /// Tokens with which machines join the cluster.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Write all objects of one revision into a file, while the control plane runs.
    ///
    /// With the embedded store, the control plane that has --data-dir is asked for it, or the store is read if none
    /// runs; with etcd it is read at one revision. Writes go on meanwhile and are not in the backup. The file is for
    /// its owner only, since Secrets are in it, and has its name only once it is whole. The keys of the cluster are not in
    /// it: keep a copy of DIR/pki as well.
    ///
    ///     orchestrator backup --data-dir /var/lib/penstock --out monday.backup
    ///     orchestrator backup --store etcd --etcd-endpoints http://10.0.0.1:2379 --out monday.backup
    #[command(verbatim_doc_comment)]
    Backup(BackupArguments),
    /// Make a store of a backup, whichever store it was taken from.
    ///
    /// Stop every API server of the cluster first. The backup is checked to its end before anything is changed, and a
    /// store that holds something is refused unless --replace is given. The restored store continues at a revision
    /// beyond all that were given out: clients that saw later ones list again.
    ///
    ///     orchestrator restore --from monday.backup --data-dir /var/lib/penstock
    ///     orchestrator restore --from monday.backup --store etcd --etcd-endpoints http://10.0.0.1:2379 --replace
    #[command(verbatim_doc_comment)]
    Restore(RestoreArguments),
    /// Check that the embedded store, or a backup, is what was written; repair nothing.
    ///
    /// Of a store that nobody has open every page and every row is checked; of a control plane that runs every row, of
    /// one revision, while it goes on. What is damaged is told with what to do, and the exit code is 1.
    ///
    ///     orchestrator check --data-dir /var/lib/penstock
    ///     orchestrator check --backup monday.backup
    #[command(verbatim_doc_comment)]
    Check(CheckArguments),
}

#[derive(Args, Debug)]
pub struct BackupArguments {
    #[command(flatten)]
    pub of: StoreArguments,
    /// The file to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Args, Debug)]
pub struct RestoreArguments {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    #[command(flatten)]
    pub to: StoreArguments,
    /// Replace what is there. A file is put aside, under its name with .replaced-TIME; etcd's records of the cluster are
    /// deleted.
    #[arg(long)]
    pub replace: bool,
}

#[derive(Args, Debug)]
#[group(id = "what")]
pub struct CheckArguments {
    /// The control plane's data directory, to check its embedded store.
    #[arg(long, value_name = "DIR", required_unless_present = "backup", conflicts_with = "backup")]
    pub data_dir: Option<PathBuf>,
    /// A backup to check.
    #[arg(long, value_name = "FILE")]
    pub backup: Option<PathBuf>,
}

/// Which store.
#[derive(Args, Debug)]
pub struct StoreArguments {
    /// The control plane's data directory, for --store embedded.
    #[arg(long, value_name = "DIR", required_unless_present = "etcd_endpoints")]
    pub data_dir: Option<PathBuf>,
    /// Where objects are kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    pub store: StoreKind,
    /// Members of the etcd cluster, for --store etcd.
    #[arg(long, value_name = "URL", value_delimiter = ',', required_if_eq("store", "etcd"))]
    pub etcd_endpoints: Vec<String>,
}

#[derive(Args, Debug)]
pub struct RunArguments {
    /// Where keys, the embedded store and the administrator's kubeconfig live.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the API server listens (HTTPS) [default: port 6443 of every address: 0.0.0.0, or :: with an --advertise-address
    /// of IPv6].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// The address others reach the API server at. Needed to run the API server.
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
    /// Addresses for Services: one range, or one a family. Services that do not say get the first one's family.
    #[arg(long, value_name = "CIDR,..", value_delimiter = ',', default_value = "10.96.0.0/16")]
    pub service_cidr: Vec<IpNetwork>,
    /// Addresses for pods, of the same families; every node gets a /24 of IPv4, a /64 of IPv6.
    #[arg(long, value_name = "CIDR,..", value_delimiter = ',', default_value = "10.244.0.0/16")]
    pub cluster_cidr: Vec<IpNetwork>,
    /// Address of the cluster's DNS in each service range [default: the tenth].
    #[arg(long, value_name = "IP,..", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Addresses for Services of type LoadBalancer, which get the lowest free one. Without any, such Services wait, and
    /// an event on them says why. Hosts must reach these addresses through the nodes.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub load_balancer_pools: Vec<IpNetwork>,
    /// Where objects are kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    pub store: StoreKind,
    /// Members of the etcd cluster, for --store etcd.
    #[arg(long, value_name = "URL", value_delimiter = ',', required_if_eq("store", "etcd"))]
    pub etcd_endpoints: Vec<String>,
    /// How large the embedded store may grow. Beyond it writes are refused, but not deletions. What history holds counts
    /// until it is forgotten, after some minutes.
    #[arg(long, value_name = "MIB", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(16..=16_777_216))]
    pub store_quota: u64,
    /// What to run in this process.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Component::Apiserver, Component::Controllers, Component::Scheduler])]
    pub components: Vec<Component>,
    /// Further names and addresses in the API server's certificate.
    #[arg(long, value_name = "NAME_OR_IP", value_delimiter = ',')]
    pub extra_san: Vec<String>,
    /// How long the API server's own certificates live: what it shows to clients, nodes and extension servers, and the
    /// administrator's kubeconfig. They are renewed while it runs, after 70 to 90 per cent of that.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = life, help_heading = "Certificates")]
    pub certificate_validity_period: Duration,
    /// How long the certificates live that are signed by request, such as those of nodes, unless less is asked for.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = life, help_heading = "Certificates")]
    pub cluster_signing_duration: Duration,
    /// How controllers and scheduler reach the API server, when it does not run in this process. Any conforming API
    /// server will do.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub access: AccessArguments,
    /// How much of which requests is written to the audit log: a Policy of audit.k8s.io/v1.
    #[arg(long, value_name = "FILE", requires = "audit_log_path", help_heading = "Audit")]
    pub audit_policy_file: Option<PathBuf>,
    /// The audit log, a JSON object a line; - is standard output.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file", help_heading = "Audit")]
    pub audit_log_path: Option<PathBuf>,
    /// A log of this size is put aside; 0: never.
    #[arg(long, value_name = "MIB", default_value_t = 100, help_heading = "Audit")]
    pub audit_log_maxsize: u64,
    /// How many logs that were put aside are kept; 0: all.
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Audit")]
    pub audit_log_maxbackup: usize,
    /// How many days they are kept; 0: for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 0, help_heading = "Audit")]
    pub audit_log_maxage: u32,
    /// Queue requests fairly when there are too many, by FlowSchemas and PriorityLevelConfigurations. Otherwise what is
    /// over the next two limits is refused.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, help_heading = "Load")]
    pub enable_priority_and_fairness: bool,
    /// Requests that read, at once. The sum with the next is what priority levels share.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = value_parser!(u32).range(1..=100_000), help_heading = "Load")]
    pub max_requests_inflight: u32,
    /// Requests that write, at once.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..=100_000), help_heading = "Load")]
    pub max_mutating_requests_inflight: u32,
    /// Connections at once; more wait.
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = value_parser!(u32).range(1..=1_000_000), help_heading = "Load")]
    pub max_connections: u32,
    /// Watches at once, but for those of the control plane's own loops; more are refused.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = value_parser!(u32).range(1..=10_000_000), help_heading = "Load")]
    pub max_watches: u32,
    /// How long to go on accepting after /readyz has begun to fail, for load balancers to notice.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, help_heading = "Load")]
    pub shutdown_delay_seconds: u32,
    /// How log lines look. RUST_LOG chooses which there are.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Subcommand, Debug)]
pub enum CredentialsOf {
    /// The administrator's: may do everything (group system:masters).
    Admin(IssueArguments),
    /// Anybody's, by name and groups, who may do what RBAC lets them.
    ///
    /// Another scheduler and controller manager, for example, are known by their names:
    ///
    ///     orchestrator credentials user system:kube-scheduler --data-dir /var/lib/penstock --server https://10.0.0.1:6443 --out scheduler.kubeconfig
    #[command(verbatim_doc_comment)]
    User {
        /// The user's name.
        name: String,
        #[command(flatten)]
        issue: IssueArguments,
        /// A group of the user's; may be given several times.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// A node's: its kubeconfig, and beside it FILE.serving.crt and FILE.serving.key for the node's own server, and
    /// FILE.ca.crt to check its clients with.
    Node {
        /// The node's name.
        name: String,
        #[command(flatten)]
        issue: IssueArguments,
        /// The address the API server reaches the node at.
        #[arg(long, value_name = "IP")]
        address: IpAddr,
    },
}

#[derive(Args, Debug)]
pub struct IssueArguments {
    /// The control plane's data directory. Its certificate authority is made if there is none yet.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The API server's URL.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// The kubeconfig to write, readable by its owner only.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How long its certificate is good. A node agent renews its own by itself.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = life)]
    pub validity_period: Duration,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A file in the data directory, for a control plane on one machine.
    Embedded,
    /// An etcd cluster.
    Etcd,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Apiserver,
    Controllers,
    Scheduler,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// How long a certificate may live: something, and not beyond what a date in a certificate can say.
fn life(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        life if life.is_zero() => Err("it must not be zero".to_owned()),
        life if life > LIFE_MAX => Err("it must not be more than 876000h, a hundred years".to_owned()),
        life => Ok(life),
    }
}

// === impl StoreArguments ===

impl StoreArguments {
    /// The data directory, which the embedded store needs.
    pub fn data_dir(&self) -> anyhow::Result<&Path> {
        self.data_dir.as_deref().context("--store embedded needs --data-dir")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let cli = Cli::parse_from([
            "orchestrator",
            "run",
            "--data-dir=/d",
            "--components=controllers,scheduler",
            "--store=etcd",
            "--etcd-endpoints=http://a:1,http://b:2",
        ]);
        let Command::Run(run) = cli.command else { panic!("{cli:?}") };
        assert_eq!(run.components, [Component::Controllers, Component::Scheduler]);
        assert_eq!(run.etcd_endpoints, ["http://a:1", "http://b:2"]);
    }

    #[test]
    fn a_store_to_back_up_is_a_folder_or_an_etcd() {
        for (arguments, missing) in [
            (vec!["backup", "--out=f"], Some("--data-dir")),
            (vec!["backup", "--out=f", "--store=etcd"], Some("--etcd-endpoints")),
            (vec!["backup", "--out=f", "--data-dir=/d"], None),
            (vec!["restore", "--from=f", "--store=etcd", "--etcd-endpoints=http://a:1"], None),
            (vec!["check"], Some("--data-dir")),
            (vec!["check", "--backup=f"], None),
        ] {
            let answer = Cli::try_parse_from(["orchestrator"].into_iter().chain(arguments));
            match missing {
                None => drop(answer.unwrap()),
                Some(option) => assert!(answer.unwrap_err().to_string().contains(option), "{option}"),
            }
        }
    }

    #[test]
    fn certificates_live_for_some_time() {
        assert_eq!(life("8760h"), Ok(Duration::from_secs(365 * 24 * 3600)));
        assert_eq!(life("20s"), Ok(Duration::from_secs(20)));
        for wrong in ["0s", "-1h", "876001h", "year"] {
            assert!(life(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn etcd_without_endpoints_is_refused() {
        let answer = Cli::try_parse_from(["orchestrator", "run", "--data-dir=/d", "--store=etcd"]);
        assert!(answer.unwrap_err().to_string().contains("--etcd-endpoints"));
    }
}
