//! The demo: installed through the API like anybody's application, then asked for on every node from outside.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::layout::{DEMO_NODE_PORT, Layout};

const NAMESPACE: &str = "demo";
const MANIFEST: &str = include_str!("demo.yaml");
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_MAX: u64 = 4096;

/// Creates the demo's objects; those that a kept store has already stay as they are.
pub async fn install(client: &Client) -> Result<()> {
    let [namespace, deployment, service] = documents()?;
    ensure::<Namespace>(&Api::all(client.clone()), &namespace).await?;
    ensure::<Deployment>(&Api::namespaced(client.clone(), NAMESPACE), &deployment).await?;
    ensure::<Service>(&Api::namespaced(client.clone(), NAMESPACE), &service).await
}

fn documents() -> Result<[String; 3]> {
    let documents: Vec<String> = MANIFEST.split("\n---\n").map(str::to_owned).collect();
    documents
        .try_into()
        .map_err(|found: Vec<_>| anyhow::anyhow!("demo.yaml has {} documents, not 3", found.len()))
}

async fn ensure<K>(api: &Api<K>, document: &str) -> Result<()>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_yaml::from_str(document).context("demo.yaml is not what Kubernetes expects")?;
    let name = object.meta().name.clone().context("an object of demo.yaml has no name")?;
    // Looked for first: creating a Service twice fails by its node port, not by its name.
    if api.get_opt(&name).await.context("the API server does not tell what of the demo is there")?.is_none() {
        api.create(&PostParams::default(), &object).await.context("the API server did not take the demo")?;
    }
    Ok(())
}

/// Waits until every node answers on the demo's NodePort.
pub async fn wait_until_served(layout: &Layout, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    for node in layout.nodes_with_agent() {
        let address = SocketAddr::new(node.address(), DEMO_NODE_PORT).to_string();
        loop {
            let why = match tokio::time::timeout(ANSWER_TIMEOUT, ask(&address)).await {
                Ok(Ok(answer)) => {
                    print!("  {address} says: {answer}");
                    break;
                }
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() > deadline {
                bail!("http://{address} did not serve the demo in {} s: {why}", limit.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

async fn ask(address: &str) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("it answered {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_a_namespace_a_deployment_and_a_service_on_the_demo_port() {
        let [namespace, deployment, service] = documents().unwrap();
        let namespace: Namespace = serde_yaml::from_str(&namespace).unwrap();
        assert_eq!(namespace.metadata.name.as_deref(), Some(NAMESPACE));
        let deployment: Deployment = serde_yaml::from_str(&deployment).unwrap();
        assert_eq!(deployment.spec.unwrap().replicas, Some(3));
        let service: Service = serde_yaml::from_str(&service).unwrap();
        let ports = service.spec.unwrap().ports.unwrap();
        assert_eq!(ports[0].node_port, Some(i32::from(DEMO_NODE_PORT)));
    }
}
