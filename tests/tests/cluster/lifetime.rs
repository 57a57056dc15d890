//! Up and down: a second `up` changes nothing, a kept store gives everything back.

use anyhow::{Result, ensure};
use penstock_tests::cluster::Cluster;

pub fn kept_store(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"])?;
    let uid = ["get", "configmap", "kept", "-o", "jsonpath={.metadata.uid}"];
    let before = cluster.kubectl(&uid)?;
    let said = cluster.start()?;
    ensure!(said.contains("runs already"), "a second up said: {said}");
    cluster.stop(true)?;
    cluster.start()?;
    let after = cluster.kubectl(&uid)?;
    ensure!(before == after, "the ConfigMap was {before} and is {after}");
    cluster.kubectl(&["delete", "configmap", "kept"]).map(drop)
}
