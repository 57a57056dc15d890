//! `orchestrator token`: what can be said about tokens with which machines join.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::access::duration;

#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    /// Make a token, and print it and the command that joins a machine with it.
    ///
    ///     orchestrator token create --data-dir /var/lib/penstock
    ///     orchestrator token create --kubeconfig ~/.kube/config --ttl 2h --description 'the new rack'
    #[command(verbatim_doc_comment)]
    Create {
        #[command(flatten)]
        to: ClusterArguments,
        /// How long it is good; 0: until it is deleted.
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
        ttl: Duration,
        /// What it is for, for people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// A group its bearer is in besides system:bootstrappers; it begins with system:bootstrappers: and may be given
        /// several times.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// List the tokens, with their secrets.
    List {
        #[command(flatten)]
        to: ClusterArguments,
    },
    /// Delete a token: nobody joins with it any more. Machines that did so stay.
    Delete {
        /// The token, or the part before its dot.
        token: String,
        #[command(flatten)]
        to: ClusterArguments,
    },
}

/// Which cluster.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct ClusterArguments {
    /// How to reach the API server, as somebody who may write Secrets in kube-system.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The control plane's data directory, whose administrator asks.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}
