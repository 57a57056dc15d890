//! `/healthz`, `/livez`, `/readyz` and `/version`.
//!
//! Each probe is a list of named checks; each check also answers under its own path.

use std::time::Duration;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::query::Query;
use super::{GIT_VERSION, Inner, respond};

/// Checks of every probe, in the order they are reported.
const CHECKS: [&str; 4] = ["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles"];
/// Only `/readyz` fails while the server is going down.
const SHUTDOWN: &str = "shutdown";
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// `/version`, in the shape client libraries parse.
pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("PENSTOCK_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("PENSTOCK_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none (rust)",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
    })
}

/// Answers a probe, or one check of it.
pub(crate) async fn answer(inner: &Inner, probe: &str, check: &str, query: &Query) -> Response<Body> {
    let mut names: Vec<&str> = CHECKS.to_vec();
    if probe == "readyz" {
        names.push(SHUTDOWN);
    }
    if !check.is_empty() {
        return match names.contains(&check) {
            false => respond::text(404, "404 page not found\n"),
            true if passes(inner, check).await => respond::text(200, "ok"),
            true => respond::text(500, format!("internal server error: {check} failed\n")),
        };
    }
    let mut report = String::new();
    let mut failed = Vec::new();
    for name in names {
        if query.all("exclude").any(|excluded| excluded == name) {
            report.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if passes(inner, name).await {
            report.push_str(&format!("[+]{name} ok\n"));
        } else {
            report.push_str(&format!("[-]{name} failed: reason withheld\n"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        return respond::text(500, format!("{report}{probe} check failed\n"));
    }
    if query.get("verbose").is_some() {
        return respond::text(200, format!("{report}{probe} check passed\n"));
    }
    respond::text(200, "ok")
}

async fn passes(inner: &Inner, check: &str) -> bool {
    match check {
        "etcd" => {
            let asked = tokio::time::timeout(STORE_TIMEOUT, inner.registry.store().revision()).await;
            matches!(asked, Ok(Ok(_)))
        }
        SHUTDOWN => !inner.leaving.is_cancelled() && !inner.stopping.is_cancelled(),
        // The server does not start before the policy is loaded, and answers only if it can answer.
        _ => true,
    }
}
