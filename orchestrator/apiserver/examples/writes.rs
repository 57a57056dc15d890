//! How many writes a second the registry takes, over the embedded store: `cargo run -p penstock-apiserver --example writes`.
//!
//! Deployments are created, scaled and given a status, by 16 at a time; then what a write costs the processor, as dry
//! runs tell, with owners of fields and after they were cleared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use penstock_apiserver::registry::{Body, Context, PatchKind, Registry, RegistryConfig, Target, User};
use penstock_store::embedded::Embedded;
use serde_json::{Value, json};

const OBJECTS: usize = 3000;
const AT_ONCE: usize = 16;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let store = Embedded::open(&directory.path().join("store.redb")).await?;
    let config = RegistryConfig {
        service_cidrs: vec!["10.96.0.0/16".parse()?],
        node_ports: (30000, 32767),
        cluster_dns: vec!["10.96.0.10".parse()?],
        cluster_domain: "cluster.local".into(),
        advertise_address: "127.0.0.1".parse()?,
        advertise_port: 6443,
    };
    let registry = Registry::new(store, config).await?;
    let writes: [(&str, Write); 3] = [("create", create), ("patch spec", scale), ("patch status", status)];
    for (what, write) in writes {
        let spent = run(&registry, OBJECTS, false, write).await;
        println!("{what}: {:.0} a second", OBJECTS as f64 / spent.as_secs_f64());
    }
    for owned in ["with owners", "without owners"] {
        // What is created always has owners.
        for (what, write) in writes.into_iter().skip(usize::from(owned == "without owners")) {
            let before = processor_ms();
            run(&registry, OBJECTS, true, write).await;
            let spent = (processor_ms() - before) * 1000 / OBJECTS as u64;
            println!("{what}, {owned}: {spent} us of the processor");
        }
        run(&registry, OBJECTS, false, clear).await;
    }
    Ok(())
}

/// What this process has taken of the processors so far.
fn processor_ms() -> u64 {
    const MS_PER_TICK: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime and stime, counted from the field after the name.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * MS_PER_TICK
}

type Write = fn(usize, bool) -> (bool, Target, Value);

/// Runs a write for every object and says how long all took.
async fn run(registry: &Arc<Registry>, objects: usize, dry_run: bool, write: Write) -> Duration {
    let started = Instant::now();
    let definition = registry.find("apps", "v1", "deployments").expect("a built-in kind");
    stream::iter(0..objects)
        .for_each_concurrent(if dry_run { 1 } else { AT_ONCE }, |n| {
            let (registry, definition) = (registry.clone(), definition.clone());
            async move {
                let mut context = Context::new(User::system("example"));
                context.dry_run = dry_run;
                context.field_manager = Some("example".into());
                let (is_create, target, body) = write(n, dry_run);
                let text = body.to_string().into();
                if is_create {
                    let body = Body::Json(text);
                    registry.create(&context, &definition, &target, body).await.expect("a create");
                } else {
                    let patched =
                        registry.patch(&context, &definition, &target, PatchKind::Merge, text).await;
                    patched.expect("a patch");
                }
            }
        })
        .await;
    started.elapsed()
}

fn name(n: usize) -> String {
    format!("web-{n}")
}

fn create(n: usize, dry_run: bool) -> (bool, Target, Value) {
    let name = if dry_run { format!("dry-{n}") } else { name(n) };
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{
                "name": "web", "image": "registry.example.com/web:1", "ports": [{"containerPort": 80, "name": "http"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
            }]}},
        },
    });
    (true, Target::collection(Some("default")), deployment)
}

fn scale(n: usize, dry_run: bool) -> (bool, Target, Value) {
    let replicas = if dry_run { 5 } else { 3 };
    (false, Target::named(Some("default"), &name(n)), json!({"spec": {"replicas": replicas}}))
}

fn clear(n: usize, _: bool) -> (bool, Target, Value) {
    (false, Target::named(Some("default"), &name(n)), json!({"metadata": {"managedFields": [{}]}}))
}

fn status(n: usize, dry_run: bool) -> (bool, Target, Value) {
    let replicas = if dry_run { 2 } else { 1 };
    let target = Target::named(Some("default"), &name(n)).with_subresource("status");
    let condition = json!([{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}]);
    (
        false,
        target,
        json!({"status": {"replicas": replicas, "observedGeneration": 1, "conditions": condition}}),
    )
}
