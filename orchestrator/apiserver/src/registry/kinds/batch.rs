//! `batch`. One file a kind.

pub(crate) mod cronjobs;
pub(crate) mod jobs;
