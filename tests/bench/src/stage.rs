//! What a whole run shares: its folder, its CPU, how often, and what is left out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use penstock_tests::dataplane::{cgroup_root, find_object};

/// What is measured, and beside whom.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Fewer rounds, fewer peers, smaller clusters.
    pub quick: bool,
    /// The real kube-proxy; without it renderings of its rules take its place.
    pub kube_proxy: Option<PathBuf>,
}

/// Shared by all measurements of a run.
pub struct Stage {
    /// Gone after the run.
    pub folder: PathBuf,
    pub cgroup_root: PathBuf,
    pub object: PathBuf,
    /// Both ends of every path run here.
    pub cpu: usize,
    pub rounds: usize,
    pub scope: Scope,
    only: Option<String>,
    prefix: String,
    names: AtomicU32,
}

impl Stage {
    pub fn new(
        folder: PathBuf,
        prefix: String,
        cpu: usize,
        rounds: usize,
        scope: Scope,
        only: Option<String>,
    ) -> Result<Stage> {
        Ok(Stage {
            folder,
            cgroup_root: cgroup_root().context("no cgroup v2 tree is mounted")?,
            object: find_object()?,
            cpu,
            rounds,
            scope,
            only,
            prefix,
            names: AtomicU32::new(0),
        })
    }

    /// A name that nothing else of this machine has; the guard knows its beginning.
    pub fn fresh_name(&self) -> String {
        format!("{}-{}", self.prefix, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a case is asked for.
    pub fn wants(&self, case: &str) -> bool {
        is_wanted(self.only.as_deref(), case)
    }
}

/// Whether a case is asked for by `--only`.
pub fn is_wanted(only: Option<&str>, case: &str) -> bool {
    only.is_none_or(|only| case.contains(only))
}
