//! The API server as clients meet it: over a temporary embedded store, in process, over TLS, and by kubectl.

#[path = "api/aggregation.rs"]
mod aggregation;
#[path = "api/applying.rs"]
mod applying;
#[path = "api/audit.rs"]
mod audit;
#[path = "api/authentication.rs"]
mod authentication;
#[path = "api/bootstrap_tokens.rs"]
mod bootstrap_tokens;
#[path = "api/certificates.rs"]
mod certificates;
#[path = "api/cluster.rs"]
mod cluster;
#[path = "api/custom_kinds.rs"]
mod custom_kinds;
#[path = "api/flow_control.rs"]
mod flow_control;
#[path = "api/hostile.rs"]
mod hostile;
#[path = "api/hostile_readers.rs"]
mod hostile_readers;
#[path = "registry/https.rs"]
mod https;
#[path = "api/in_process.rs"]
mod in_process;
#[path = "api/kubectl.rs"]
mod kubectl;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/over_tls.rs"]
mod over_tls;
#[path = "api/policies.rs"]
mod policies;
#[path = "api/proxying.rs"]
mod proxying;
#[path = "api/replay.rs"]
mod replay;
#[path = "api/shutdown.rs"]
mod shutdown;
#[path = "api/webhooks.rs"]
mod webhooks;
#[path = "api/websockets.rs"]
mod websockets;
