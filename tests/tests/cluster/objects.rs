//! Objects through kubectl: apply, create, get, describe, explain, scale, roll out, undo, delete, and bad input.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::until;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("kubectl_lists_resources_and_explains_them", discovery),
    ("kubectl_applies_shows_and_deletes_a_deployment", apply_and_show),
    ("kubectl_creates_from_the_command_line", create),
    ("a_deployment_scales_rolls_out_and_is_undone", roll_out),
    ("a_watch_shows_changes_as_they_come", watch),
    ("a_bad_manifest_is_refused_by_field_and_stores_nothing", bad_manifest),
    ("a_pod_that_fits_nowhere_says_why", pending),
];

const IMAGE: &str = "penstock.local/demo:1";

fn discovery(cluster: &Cluster) -> Result<()> {
    let resources = cluster.kubectl(&["api-resources"])?;
    for kind in ["Pod", "Deployment", "EndpointSlice", "NetworkPolicy", "CustomResourceDefinition"] {
        ensure!(resources.contains(kind), "api-resources does not list {kind}");
    }
    let explained = cluster.kubectl(&["explain", "deployment.spec.strategy.rollingUpdate"])?;
    ensure!(explained.contains("maxSurge"), "explain says: {explained}");
    Ok(())
}

fn manifest(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  replicas: {replicas}\n  \
         selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    \
         spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: {IMAGE}\n        args: [serve]\n"
    )
}

fn apply_and_show(cluster: &Cluster) -> Result<()> {
    let applied = cluster.kubectl_with(&["apply", "-f", "-"], &manifest("shown", 1))?;
    ensure!(applied.contains("deployment.apps/shown created"), "apply said: {applied}");
    let again = cluster.kubectl_with(&["apply", "-f", "-"], &manifest("shown", 1))?;
    ensure!(again.contains("unchanged"), "the second apply said: {again}");
    cluster.kubectl(&["rollout", "status", "deployment/shown", "--timeout=60s"])?;
    let wide = cluster.kubectl(&["get", "pods", "-l", "app=shown", "-o", "wide"])?;
    ensure!(wide.contains("Running") && wide.contains("node-"), "get -o wide shows: {wide}");
    let yaml = cluster.kubectl(&["get", "deployment", "shown", "-o", "yaml"])?;
    ensure!(yaml.contains("readyReplicas: 1"), "get -o yaml shows: {yaml}");
    let described = cluster.kubectl(&["describe", "deployment", "shown"])?;
    ensure!(described.contains("ScalingReplicaSet"), "describe shows no event: {described}");
    cluster.kubectl(&["delete", "deployment", "shown"])?;
    until(PATIENCE, "pods of a deleted deployment go", || {
        cluster
            .kubectl(&["get", "pods", "-l", "app=shown", "-o", "name"])
            .is_ok_and(|names| names.trim().is_empty())
    })
}

fn create(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "deployment", "made", "--image", IMAGE, "--", "/bin/demo", "serve"])?;
    cluster.kubectl(&["create", "configmap", "made", "--from-literal=greeting=hello"])?;
    cluster.kubectl(&["create", "secret", "generic", "made", "--from-literal=word=secret"])?;
    let greeting = cluster.kubectl(&["get", "configmap", "made", "-o", "jsonpath={.data.greeting}"])?;
    ensure!(greeting == "hello", "the ConfigMap holds {greeting}");
    let word = cluster.kubectl(&["get", "secret", "made", "-o", "jsonpath={.data.word}"])?;
    ensure!(word == "c2VjcmV0", "the Secret holds {word}");
    cluster.kubectl(&["rollout", "status", "deployment/made", "--timeout=60s"])?;
    cluster.kubectl(&["delete", "deployment/made", "configmap/made", "secret/made"]).map(drop)
}

fn roll_out(cluster: &Cluster) -> Result<()> {
    cluster.kubectl_with(&["apply", "-f", "-"], &manifest("rolled", 2))?;
    cluster.kubectl(&["rollout", "status", "deployment/rolled", "--timeout=60s"])?;
    cluster.kubectl(&["scale", "deployment/rolled", "--replicas=4"])?;
    cluster.kubectl(&["rollout", "status", "deployment/rolled", "--timeout=60s"])?;
    cluster.kubectl(&["set", "image", "deployment/rolled", "main=penstock.local/absent:1"])?;
    let image = ["get", "deployment", "rolled", "-o", "jsonpath={.spec.template.spec.containers[0].image}"];
    ensure!(cluster.kubectl(&image)? == "penstock.local/absent:1", "set image did not take");
    cluster.kubectl(&["rollout", "undo", "deployment/rolled"])?;
    cluster.kubectl(&["rollout", "status", "deployment/rolled", "--timeout=60s"])?;
    ensure!(cluster.kubectl(&image)? == IMAGE, "undo did not bring the image back");
    cluster.kubectl(&["delete", "deployment", "rolled"]).map(drop)
}

fn watch(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "watched", "--from-literal=key=one"])?;
    let mut child = cluster
        .kubectl_command(&["get", "configmap", "watched", "-w", "-o", "jsonpath={.data.key}{\"\\n\"}"])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("kubectl has no output")?).lines();
    let outcome = (|| {
        ensure!(
            lines.next().transpose()?.as_deref() == Some("one"),
            "the watch does not begin with what is there"
        );
        cluster.kubectl(&["patch", "configmap", "watched", "-p", "{\"data\":{\"key\":\"two\"}}"])?;
        ensure!(lines.next().transpose()?.as_deref() == Some("two"), "the watch does not show the change");
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    cluster.kubectl(&["delete", "configmap", "watched"])?;
    outcome
}

fn bad_manifest(cluster: &Cluster) -> Result<()> {
    let unknown = manifest("bad", 1).replace("image:", "imagee:");
    let refused =
        cluster.kubectl_with(&["apply", "-f", "-"], &unknown).err().context("an unknown field was taken")?;
    let path = "spec.template.spec.containers[0].imagee";
    ensure!(refused.to_string().contains(path), "the refusal does not name {path}: {refused}");
    let mismatched =
        manifest("bad", 1).replace("matchLabels:\n      app: bad", "matchLabels:\n      app: other");
    let refused =
        cluster.kubectl_with(&["apply", "-f", "-"], &mismatched).err().context("a bad selector was taken")?;
    ensure!(
        refused.to_string().contains("spec.template.metadata.labels"),
        "the refusal names no field: {refused}"
    );
    let stored = cluster.kubectl(&["get", "deployments", "-o", "name"])?;
    ensure!(!stored.contains("bad"), "something was stored: {stored}");
    Ok(())
}

fn pending(cluster: &Cluster) -> Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: unfit\nspec:\n  nodeSelector:\n    disk: none-has-this\n  \
         containers:\n  - name: main\n    image: {IMAGE}\n    args: [serve]\n"
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &pod)?;
    until(PATIENCE, "an event says why the pod waits", || {
        cluster.kubectl(&["describe", "pod", "unfit"]).is_ok_and(|text| {
            text.contains("FailedScheduling")
                && text.contains("0/3 nodes are available")
                && text.contains("node affinity")
        })
    })?;
    cluster.kubectl(&["delete", "pod", "unfit"]).map(drop)
}
