//! A client that is not kubectl: kube-rs, as a program of its own would use it, with nothing but the kubeconfig.

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition as _, await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, ResourceExt};
use penstock_tests::cluster::{Cluster, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[("kube_rs_installs_watches_and_executes", |cluster| {
    on_a_runtime(installs_watches_and_executes(cluster))
})];

const NAME: &str = "by-kube-rs";
const APP: &str = "app=by-kube-rs";

fn on_a_runtime(scenario: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(scenario)
}

async fn installs_watches_and_executes(cluster: &Cluster) -> Result<()> {
    let client = client(cluster).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "demo");
    let pods: Api<Pod> = Api::namespaced(client, "demo");
    let outcome = use_it(&deployments, &pods).await;
    deployments.delete(NAME, &DeleteParams::foreground()).await.context("delete")?;
    outcome?;
    timeout(PATIENCE, await_condition(deployments, NAME, |it: Option<&Deployment>| it.is_none()))
        .await
        .context("the deployment is still there")??;
    let left = pods.list(&ListParams::default().labels(APP)).await?.items;
    ensure!(left.is_empty(), "deleted in the foreground, but {} of its pods are there", left.len());
    Ok(())
}

async fn client(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

async fn use_it(deployments: &Api<Deployment>, pods: &Api<Pod>) -> Result<()> {
    // Before anything is there, so that all of it comes as events; by streaming lists, as newer clients begin.
    let config = watcher::Config::default().labels(APP).streaming_lists();
    let mut seen = Box::pin(watcher(pods.clone(), config).applied_objects());
    let applied = deployments
        .patch(NAME, &PatchParams::apply("kube-rs"), &Patch::Apply(deployment(2)?))
        .await
        .context("server-side apply")?;
    ensure!(applied.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("kube-rs")));
    let ready = timeout(PATIENCE, async {
        while let Some(pod) = seen.try_next().await? {
            if conditions::is_pod_running().matches_object(Some(&pod)) {
                return Ok(pod.name_any());
            }
        }
        anyhow::bail!("the watch ended")
    });
    let pod = ready.await.context("no event of a running pod")??;
    let is_complete = conditions::is_deployment_completed();
    timeout(PATIENCE, await_condition(deployments.clone(), NAME, is_complete))
        .await
        .context("not rolled out")??;

    executes(pods, &pod).await.context("exec")?;
    forwards(pods, &pod).await.context("port-forward")?;
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream(&pod, &follow).await.context("logs")?.lines();
    let first = timeout(PATIENCE, lines.next()).await?.context("the log is empty")??;
    ensure!(first.contains("serves HTTP on port 8080"), "the log begins with {first:?}");
    Ok(())
}

async fn executes(pods: &Api<Pod>, pod: &str) -> Result<()> {
    let mut process = pods.exec(pod, ["cat"], &AttachParams::default().stdin(true).stderr(false)).await?;
    let mut input = process.stdin().context("no standard input")?;
    let mut output = process.stdout().context("no standard output")?;
    input.write_all(b"from outside\n").await?;
    input.shutdown().await?;
    drop(input);
    let mut said = String::new();
    timeout(PATIENCE, output.read_to_string(&mut said)).await.context("cat does not end")??;
    ensure!(said == "from outside\n", "cat gave back {said:?}");

    let mut failing = pods.exec(pod, ["sh", "-c", "exit 7"], &AttachParams::default().stderr(false)).await?;
    let status = timeout(PATIENCE, failing.take_status().context("no status")?).await?.context("no end")?;
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    ensure!(
        status.reason.as_deref() == Some("NonZeroExitCode")
            && causes.iter().any(|cause| cause.message.as_deref() == Some("7")),
        "exit 7 was told as {:?} with {causes:?}",
        status.reason
    );
    Ok(())
}

async fn forwards(pods: &Api<Pod>, pod: &str) -> Result<()> {
    let mut forwarder = pods.portforward(pod, &[8080]).await?;
    let mut stream = forwarder.take_stream(8080).context("no stream")?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.context("no end of the answer")??;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains(pod), "the pod answered {answer:?}");
    Ok(())
}

fn deployment(replicas: i32) -> Result<Deployment> {
    Ok(serde_json::from_value(serde_json::json!({
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "hello",
                        "image": "penstock.local/demo:1",
                        "args": ["serve"],
                        "env": [
                            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                        ],
                    }],
                },
            },
        },
    }))?)
}
