//! Who does not join is told why, and what to do.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use penstock_identity::{Join, JoinError};
use serde_json::json;

use crate::control_plane::{ControlPlane, eventually};

/// The refusal of a machine that must not have joined.
async fn refused(join: &Join) -> Result<JoinError> {
    let refused = penstock_identity::join(join).await.err().context("it has joined")?;
    ensure!(!join.kubeconfig.exists(), "there is a kubeconfig");
    Ok(refused)
}

/// The message as a person sees it, causes included.
fn told(error: JoinError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

fn with_token(join: &Join, token: &str) -> Result<Join> {
    Ok(Join { token: token.parse().map_err(|why: String| anyhow::anyhow!(why))?, ..join.clone() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_a_wrong_hash_are_told_apart() -> Result<()> {
    let control_plane = ControlPlane::start(&[]).await?;
    let join = control_plane.invitation("machine", &[])?;
    let id = join.token.id().to_owned();

    let unknown = with_token(&join, "zzzzzz.0123456789abcdef")?;
    let mistyped = with_token(&join, &format!("{id}.0123456789abcdef"))?;
    let mistyped = async {
        // Its signature may come a moment later.
        eventually("the token has signed", async || match refused(&mistyped).await? {
            JoinError::Distrust { server, source } => Ok(format!("{server} {source}")),
            other => Err(other.into()),
        })
        .await
    };
    let (unknown, mistyped) = tokio::join!(refused(&unknown), mistyped);
    let (unknown, mistyped) = (told(unknown?), mistyped?);
    ensure!(unknown.contains("zzzzzz") && unknown.contains("orchestrator token create"), "{unknown}");
    ensure!(mistyped.contains(&id) && mistyped.contains("--token is mistyped"), "{mistyped}");

    let other = format!("sha256:{}", "0".repeat(64));
    let pins = vec![other.parse().map_err(|why: String| anyhow::anyhow!(why))?];
    let stranger = told(refused(&Join { pins, ..join.clone() }).await?);
    ensure!(stranger.contains(&other) && stranger.contains(&join.pins[0].to_string()), "{stranger}");

    let nowhere = told(refused(&Join { server: "127.0.0.1".to_owned(), ..join.clone() }).await?);
    ensure!(nowhere.contains("HOST:PORT"), "{nowhere}");
    penstock_identity::join(&join).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_and_a_request_that_is_denied_are_the_end_of_it() -> Result<()> {
    let control_plane = ControlPlane::start(&[]).await?;
    let admin = control_plane.admin().await?;
    let nodes: Api<Node> = Api::all(admin.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "taken"}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    let now = "2026-01-01T00:00:00Z";
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    nodes.patch_status("taken", &PatchParams::default(), &Patch::Strategic(status)).await?;
    let taken = told(refused(&control_plane.invitation("taken", &[])?).await?);
    ensure!(taken.contains("--node-name") && taken.contains("kubectl delete node taken"), "{taken}");

    // Nobody approves by itself any more: a person decides.
    let bindings: Api<ClusterRoleBinding> = Api::all(admin.clone());
    bindings.delete("kubeadm:node-autoapprove-bootstrap", &DeleteParams::default()).await?;
    let join = control_plane.invitation("unwanted", &[])?;
    let requests: Api<CertificateSigningRequest> = Api::all(admin);
    let deny = async {
        let name = eventually("there is a request", async || {
            let all = requests.list(&ListParams::default()).await?;
            let mut names = all.items.into_iter().filter_map(|it| it.metadata.name);
            names.find(|name| name.starts_with("node-client-unwanted-")).context("none yet")
        })
        .await?;
        let denial = json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "NotOurs",
            "message": "nobody knows this machine"}]}});
        requests.patch_approval(&name, &PatchParams::default(), &Patch::Merge(denial)).await?;
        Ok::<_, anyhow::Error>(name)
    };
    let (denied, name) = tokio::join!(refused(&join), deny);
    let (denied, name) = (told(denied?), name?);
    ensure!(denied.contains(&name) && denied.contains("NotOurs: nobody knows this machine"), "{denied}");
    Ok(())
}
