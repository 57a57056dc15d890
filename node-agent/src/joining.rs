//! Before anything runs: becoming a node with a token where there is no kubeconfig, and finding out what was not said.
//!
//! It exists so that joining is one command, which can also be what a machine runs at every start. It must not know how
//! joining works.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use penstock_identity::{Join, JoinToken};

use crate::options::Run;

/// Joins, if that is asked for and there is no kubeconfig that can be used.
pub async fn join_if_need_be(options: &Run) -> Result<()> {
    let Some(server) = &options.join.server else { return Ok(()) };
    let kubeconfig = options.kubeconfig();
    if penstock_identity::is_usable(&kubeconfig, SystemTime::now()).await {
        tracing::debug!(kubeconfig = %kubeconfig.display(), "this machine has joined already");
        return Ok(());
    }
    if kubeconfig.exists() {
        tracing::warn!(kubeconfig = %kubeconfig.display(), "it cannot be used, or its certificate has ended: joining anew");
    }
    let join = Join {
        server: server.clone(),
        token: token(options)?,
        pins: options.join.ca_hash.clone(),
        node: options.node_name.clone(),
        kubeconfig,
        authority: options.joined_authority(),
    };
    Ok(penstock_identity::join(&join).await?)
}

fn token(options: &Run) -> Result<JoinToken> {
    match (&options.join.token, &options.join.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("--token-file {} cannot be read", file.display()))?;
            text.parse().map_err(|why: String| anyhow::anyhow!("--token-file {}: {why}", file.display()))
        }
        (None, None) => {
            bail!("--join needs --token or --token-file; `orchestrator token create` makes a token")
        }
    }
}

/// Finds out what was not said, and checks files that must be there.
pub async fn complete(options: &mut Run, config: &kube::Config) -> Result<()> {
    if options.node_ip.is_empty() {
        let address = address_towards(&config.cluster_url).await?;
        tracing::info!(%address, "the node's address is the one from which it reaches the API server");
        options.node_ip = vec![address];
    }
    let given: [(&str, &Option<PathBuf>); 2] =
        [("--serving-cert", &options.serving_cert), ("--serving-key", &options.serving_key)];
    for (option, file) in given {
        if let Some(file) = file {
            ensure!(file.exists(), "{option} {}: there is no such file", file.display());
        }
    }
    Ok(())
}

/// The address this machine sends from to the host of a URL. Nothing is sent.
async fn address_towards(url: &http::Uri) -> Result<IpAddr> {
    let unknown = || format!("the node's address cannot be told from the way to {url}; give --node-ip");
    let host = url.host().with_context(unknown)?.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(443);
    let server = tokio::net::lookup_host((host, port)).await.with_context(unknown)?.next();
    let server = server.with_context(unknown)?;
    let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let socket = tokio::net::UdpSocket::bind(any).await.with_context(unknown)?;
    socket.connect(server).await.with_context(unknown)?;
    let address = socket.local_addr().with_context(unknown)?.ip();
    ensure!(!address.is_loopback(), "the API server is on this machine itself, {server}; give --node-ip");
    Ok(address)
}
