//! Joining with a token, and what becomes of tokens.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::net::TcpListener;

use crate::control_plane::{ControlPlane, eventually};

/// Who the bearer of a kubeconfig is.
async fn who(client: &Client) -> Result<(String, Vec<String>)> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let said = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = said.status.and_then(|it| it.user_info).context("no user")?;
    Ok((user.username.unwrap_or_default(), user.groups.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_with_one_command_also_before_there_is_a_server() -> Result<()> {
    let mut control_plane = ControlPlane::start(&[]).await?;
    let join = control_plane.invitation("machine-1", &[])?;
    // The server goes away, and comes back when the machine asks already.
    control_plane.stop();
    let returns = async {
        // Not before the machine has asked in vain.
        drop(TcpListener::bind(control_plane.address).await?.accept().await?);
        control_plane.launch()
    };
    let (joined, launched) = tokio::join!(penstock_identity::join(&join), returns);
    launched?;
    joined?;

    for file in [&join.kubeconfig, &join.authority] {
        let mode = std::fs::metadata(file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has mode {mode:o}", file.display());
    }
    ensure!(penstock_identity::is_usable(&join.kubeconfig, std::time::SystemTime::now()).await);
    let client = Client::try_from(penstock_identity::read(&join.kubeconfig).await?)?;
    let (user, groups) = who(&client).await?;
    ensure!(user == "system:node:machine-1", "{user}");
    ensure!(groups.contains(&"system:nodes".to_owned()), "{groups:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_listed_and_end_and_take_their_signatures_with_them() -> Result<()> {
    let control_plane = ControlPlane::start(&[]).await?;
    let stays = control_plane.invitation("a", &["--description", "the new rack"])?;
    let ends = control_plane.invitation("b", &["--ttl", "2s"])?;
    let admin = control_plane.admin().await?;
    let maps: Api<ConfigMap> = Api::namespaced(admin, "kube-public");
    let signature = |id: &str| format!("jws-kubeconfig-{id}");
    let signed = async || -> Result<Vec<String>> {
        Ok(maps.get("cluster-info").await?.data.unwrap_or_default().into_keys().collect())
    };
    eventually("the token that stays has signed", async || {
        ensure!(signed().await?.contains(&signature(stays.token.id())));
        Ok(())
    })
    .await?;
    eventually("the token that ended is gone", async || {
        let listed = control_plane.token(&["list"])?;
        ensure!(!listed.contains(ends.token.id()), "{listed}");
        ensure!(listed.contains(stays.token.id()) && listed.contains("the new rack"), "{listed}");
        ensure!(!signed().await?.contains(&signature(ends.token.id())));
        Ok(())
    })
    .await?;
    control_plane.token(&["delete", stays.token.id()])?;
    let told = control_plane.token(&["delete", stays.token.id()]).unwrap_err().to_string();
    ensure!(told.contains("there is no token") && told.contains("orchestrator token list"), "{told}");
    eventually("no token signs any more", async || {
        ensure!(signed().await? == ["kubeconfig"]);
        Ok(())
    })
    .await
}
