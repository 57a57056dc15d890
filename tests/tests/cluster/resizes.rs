//! Pods get more and less CPU and memory while they run, and the kernel knows.

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::until;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("a_resized_container_runs_on_under_its_new_limits", in_place),
    ("a_resize_restarts_a_container_whose_policy_says_so", by_restart),
    ("a_resize_the_node_cannot_hold_is_put_off_with_the_reason", put_off),
    ("a_memory_limit_below_what_is_used_is_kept_back", kept_back),
    ("a_resize_that_is_more_than_an_amount_is_refused", refused),
    ("the_classes_of_pods_weigh_what_their_pods_ask_for", classes),
];

const NODE: &str = "node-1";
const IMAGE: &str = "penstock.local/demo:1";

/// A pod on [`NODE`] of 100m CPU and 64Mi, with half of both guaranteed, and policies for each resource.
fn start(cluster: &Cluster, name: &str, memory_policy: &str) -> Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  nodeName: {NODE}\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: main\n    image: {IMAGE}\n    args: [serve]\n    resizePolicy:\n    \
         - {{resourceName: cpu, restartPolicy: NotRequired}}\n    - {{resourceName: memory, restartPolicy: {memory_policy}}}\n    \
         resources:\n      requests: {{cpu: 50m, memory: 32Mi}}\n      limits: {{cpu: 100m, memory: 64Mi}}\n"
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &pod)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"]).map(drop)
}

fn resize(cluster: &Cluster, name: &str, resources: &str) -> Result<String> {
    let patch = format!("{{\"spec\":{{\"containers\":[{{\"name\":\"main\",\"resources\":{resources}}}]}}}}");
    cluster.kubectl(&["patch", "pod", name, "--subresource", "resize", "--patch", &patch])
}

fn show(cluster: &Cluster, name: &str, path: &str) -> Result<String> {
    cluster.kubectl(&["get", "pod", name, "-o", &format!("jsonpath={path}")])
}

/// Shares or weight, quota and memory limit of a cgroup, as the kernel of the node has them.
#[derive(Debug, Clone, PartialEq)]
struct Kernel {
    cpu: String,
    quota: String,
    memory: String,
}

/// Of the pod and of its container.
fn kernel(cluster: &Cluster, name: &str) -> Result<(Kernel, Kernel)> {
    let uid = show(cluster, name, "{.metadata.uid}")?;
    let id = show(cluster, name, "{.status.containerStatuses[0].containerID}")?;
    let id = id.rsplit('/').next().context("the container has no id")?.to_owned();
    let read = |below: &str, files: &[&str]| -> Result<String> {
        // v2 first, then a v1 controller under its own name; `find` because the parent is the cluster's own matter.
        let path = format!("*/pod{uid}{below}");
        for file in files {
            let full = format!("{path}/{file}");
            let text = cluster.in_node(
                NODE,
                &["find", "/sys/fs/cgroup", "-path", &full, "-exec", "cat", "{}", ";", "-quit"],
            )?;
            if !text.trim().is_empty() {
                return Ok(text.trim().to_owned());
            }
        }
        anyhow::bail!("none of {files:?} is below {path} on {NODE}")
    };
    let of = |below: &str| -> Result<Kernel> {
        Ok(Kernel {
            cpu: read(below, &["cpu.shares", "cpu.weight"])?,
            quota: read(below, &["cpu.cfs_quota_us", "cpu.max"])?
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            memory: read(below, &["memory.limit_in_bytes", "memory.max"])?,
        })
    };
    Ok((of("")?, of(&format!("/{id}"))?))
}

fn is_limited(kernel: &Kernel, quota_us: &str, memory_mib: u64) -> bool {
    kernel.quota == quota_us && kernel.memory == (memory_mib << 20).to_string()
}

fn in_place(cluster: &Cluster) -> Result<()> {
    start(cluster, "grown", "NotRequired")?;
    let (pod, container) = kernel(cluster, "grown")?;
    ensure!(
        is_limited(&container, "10000", 64) && is_limited(&pod, "10000", 64),
        "began as {pod:?} {container:?}"
    );
    let id = show(cluster, "grown", "{.status.containerStatuses[0].containerID}")?;
    let wider = r#"{"requests":{"cpu":"200m","memory":"64Mi"},"limits":{"cpu":"400m","memory":"128Mi"}}"#;
    for (resources, quota, memory, shown) in [
        (wider, "40000", 128, "200m 200m 400m 128Mi"),
        (
            r#"{"requests":{"cpu":"20m","memory":"32Mi"},"limits":{"cpu":"50m","memory":"48Mi"}}"#,
            "5000",
            48,
            "20m 20m 50m 48Mi",
        ),
    ] {
        let before = kernel(cluster, "grown")?;
        resize(cluster, "grown", resources)?;
        until(PATIENCE, "the kernel holds pod and container to the new limits", || {
            kernel(cluster, "grown").is_ok_and(|(pod, container)| {
                is_limited(&container, quota, memory)
                    && is_limited(&pod, quota, memory)
                    && container.cpu != before.1.cpu
                    && pod.cpu != before.0.cpu
            })
        })?;
        let status = "{.status.containerStatuses[0]['allocatedResources','resources.requests','resources.limits'].cpu} \
                      {.status.containerStatuses[0].resources.limits.memory}";
        until(PATIENCE, "the status says so", || {
            show(cluster, "grown", status).is_ok_and(|text| text == shown)
                && show(cluster, "grown", "{.status.conditions[*].type}")
                    .is_ok_and(|all| !all.contains("Resize"))
                && show(cluster, "grown", "{.status.observedGeneration}").ok()
                    == show(cluster, "grown", "{.metadata.generation}").ok()
        })?;
    }
    // A dead agent forgets nothing of this, and the next one changes nothing.
    let before = kernel(cluster, "grown")?;
    cluster.kill_9(NODE, "node-agent")?;
    resize(cluster, "grown", wider)?;
    until(PATIENCE, "what was asked for while the agent was dead comes into force", || {
        kernel(cluster, "grown").is_ok_and(|(_, container)| is_limited(&container, "40000", 128))
    })?;
    ensure!(before != kernel(cluster, "grown")?, "nothing changed");
    let now = show(cluster, "grown", "{.status.containerStatuses[0].containerID}")?;
    ensure!(now == id, "the container was {id} and is {now}");
    ensure!(
        show(cluster, "grown", "{.status.containerStatuses[0].restartCount}")? == "0",
        "it was restarted"
    );
    cluster.kubectl(&["delete", "pod", "grown"]).map(drop)
}

fn by_restart(cluster: &Cluster) -> Result<()> {
    start(cluster, "restarted", "RestartContainer")?;
    let restarts = |count: &str| {
        show(
            cluster,
            "restarted",
            "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}",
        )
        .is_ok_and(|text| text == format!("{count} true"))
    };
    resize(cluster, "restarted", r#"{"limits":{"cpu":"200m"}}"#)?;
    until(PATIENCE, "CPU comes into force", || {
        kernel(cluster, "restarted").is_ok_and(|(_, container)| is_limited(&container, "20000", 64))
    })?;
    ensure!(restarts("0"), "the container restarted for its CPU");
    resize(cluster, "restarted", r#"{"limits":{"memory":"96Mi"}}"#)?;
    until(PATIENCE, "the container restarts once", || restarts("1"))?;
    let (pod, container) = kernel(cluster, "restarted")?;
    ensure!(is_limited(&pod, "20000", 96) && is_limited(&container, "20000", 96), "{pod:?} {container:?}");
    cluster.kubectl(&["delete", "pod", "restarted"]).map(drop)
}

fn put_off(cluster: &Cluster) -> Result<()> {
    start(cluster, "greedy", "NotRequired")?;
    start(cluster, "neighbour", "NotRequired")?;
    let reason = "{.status.conditions[?(@.type=='PodResizePending')].reason}";
    let says = |name: &str, want: &str| {
        until(PATIENCE, want, || show(cluster, name, reason).is_ok_and(|text| text == want))
    };
    let (pod, _) = kernel(cluster, "greedy")?;
    resize(cluster, "greedy", r#"{"requests":{"cpu":"5000"},"limits":{"cpu":"5000"}}"#)?;
    says("greedy", "Infeasible")?;
    // Nearly the whole node, so that what the neighbour has is in the way.
    let cpus: u64 =
        cluster.kubectl(&["get", "node", NODE, "-o", "jsonpath={.status.allocatable.cpu}"])?.parse()?;
    let most = cpus * 1000 - 10;
    resize(
        cluster,
        "greedy",
        &format!(r#"{{"requests":{{"cpu":"{most}m"}},"limits":{{"cpu":"{most}m"}}}}"#),
    )?;
    says("greedy", "Deferred")?;
    let message = show(cluster, "greedy", "{.status.conditions[?(@.type=='PodResizePending')].message}")?;
    ensure!(message.contains(&format!("cpu {most}m")), "the condition says: {message}");
    let allocated = show(cluster, "greedy", "{.status.containerStatuses[0].allocatedResources.cpu}")?;
    ensure!(allocated == "50m" && kernel(cluster, "greedy")?.0 == pod, "{allocated} was given");
    // The next agent knows what the dead one had given, and refuses what it refused.
    cluster.kill_9(NODE, "node-agent")?;
    resize(cluster, "neighbour", r#"{"limits":{"cpu":"200m"}}"#)?;
    until(PATIENCE, "the next agent is at work", || {
        kernel(cluster, "neighbour").is_ok_and(|(_, container)| is_limited(&container, "20000", 64))
    })?;
    says("greedy", "Deferred")?;
    let allocated = show(cluster, "greedy", "{.status.containerStatuses[0].allocatedResources.cpu}")?;
    ensure!(
        allocated == "50m" && kernel(cluster, "greedy")?.0 == pod,
        "{allocated} was given by the next agent"
    );
    // Room is made, and nobody has to ask again.
    cluster.kubectl(&["delete", "pod", "neighbour"])?;
    until(PATIENCE, "the resize comes into force", || {
        kernel(cluster, "greedy").is_ok_and(|(_, container)| container.quota == (most * 100).to_string())
    })?;
    until(PATIENCE, "nothing is pending", || {
        show(cluster, "greedy", reason).is_ok_and(|text| text.is_empty())
    })?;
    cluster.kubectl(&["delete", "pod", "greedy"]).map(drop)
}

fn kept_back(cluster: &Cluster) -> Result<()> {
    start(cluster, "full", "NotRequired")?;
    resize(cluster, "full", r#"{"requests":{"memory":"8Ki"},"limits":{"cpu":"200m","memory":"8Ki"}}"#)?;
    let condition = "{.status.conditions[?(@.type=='PodResizeInProgress')]['reason','message']}";
    until(PATIENCE, "the status says what is in the way", || {
        show(cluster, "full", condition)
            .is_ok_and(|text| text.starts_with("Error the memory limit of container main"))
    })?;
    let (pod, container) = kernel(cluster, "full")?;
    ensure!(is_limited(&pod, "20000", 64) && is_limited(&container, "20000", 64), "{pod:?} {container:?}");
    let shown = show(cluster, "full", "{.status.containerStatuses[0].resources.limits.memory}")?;
    ensure!(shown == (64 << 20).to_string(), "the status shows {shown}");
    resize(cluster, "full", r#"{"requests":{"memory":"32Mi"},"limits":{"memory":"48Mi"}}"#)?;
    until(PATIENCE, "a limit that can be kept comes into force", || {
        kernel(cluster, "full").is_ok_and(|(pod, container)| {
            is_limited(&pod, "20000", 48) && is_limited(&container, "20000", 48)
        })
    })?;
    cluster.kubectl(&["delete", "pod", "full"]).map(drop)
}

fn refused(cluster: &Cluster) -> Result<()> {
    start(cluster, "fixed", "NotRequired")?;
    for (resources, why) in [
        (r#"{"limits":{"cpu":null}}"#, "limits cannot be removed"),
        (r#"{"requests":{"cpu":"100m","memory":"64Mi"}}"#, "QOS Class may not change"),
        (r#"{"requests":{"example.com/x":"1"},"limits":{"example.com/x":"1"}}"#, "only cpu and memory"),
        (r#"{"requests":{"cpu":"300m"}}"#, "must be less than or equal to cpu limit"),
    ] {
        let error =
            resize(cluster, "fixed", resources).err().with_context(|| format!("{resources} was taken"))?;
        ensure!(error.to_string().contains(why), "{resources} was refused with: {error}");
    }
    let plain = r#"{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"1"}}}]}}"#;
    let error = cluster
        .kubectl(&["patch", "pod", "fixed", "--patch", plain])
        .err()
        .context("a plain patch was taken")?;
    ensure!(error.to_string().contains("pod updates may not change fields"), "refused with: {error}");
    cluster.kubectl(&["delete", "pod", "fixed"]).map(drop)
}

/// Shares or weight of a class's cgroup on [`NODE`], as the kernel has them.
fn weight(cluster: &Cluster, class: &str) -> Result<u64> {
    for file in ["cpu.shares", "cpu.weight"] {
        let path = format!("*/kubepods/{class}/{file}");
        let text = cluster
            .in_node(NODE, &["find", "/sys/fs/cgroup", "-path", &path, "-exec", "cat", "{}", ";", "-quit"])?;
        if !text.trim().is_empty() {
            return Ok(text.trim().parse()?);
        }
    }
    anyhow::bail!("the class {class} has no cgroup with a weight on {NODE}")
}

fn classes(cluster: &Cluster) -> Result<()> {
    // As little as there is: 2 shares of v1, a weight of 1 in v2.
    let best_effort = weight(cluster, "besteffort")?;
    ensure!(best_effort <= 2, "best effort weighs {best_effort}");
    let without = weight(cluster, "burstable")?;
    start(cluster, "weighed", "NotRequired")?;
    until(PATIENCE, "the class weighs more with one more pod", || {
        weight(cluster, "burstable").is_ok_and(|now| now > without)
    })?;
    let with = weight(cluster, "burstable")?;
    resize(cluster, "weighed", r#"{"requests":{"cpu":"900m"},"limits":{"cpu":"1"}}"#)?;
    until(PATIENCE, "it weighs more when the pod gets more", || {
        weight(cluster, "burstable").is_ok_and(|now| now > with)
    })?;
    cluster.kubectl(&["delete", "pod", "weighed"])?;
    until(PATIENCE, "it weighs what it did when the pod is gone", || {
        weight(cluster, "burstable").is_ok_and(|now| now == without)
    })
}
