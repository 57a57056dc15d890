//! Storage that outlives a pod: a volume made by hand, claimed, written by one pod and read by the next.

use anyhow::{Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::eventually;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[("what_a_pod_wrote_to_a_claim_the_next_one_reads", outlives_a_pod)];

const NAMES: [&str; 4] =
    ["pod/kept-writer", "pod/kept-reader", "persistentvolumeclaim/kept", "persistentvolume/kept"];

fn outlives_a_pod(cluster: &Cluster) -> Result<()> {
    // The nodes of a cluster share this machine's files.
    let folder = tempfile::tempdir()?;
    let outcome = write_and_read(cluster, &folder.path().display().to_string());
    let mut words = vec!["--namespace", "demo", "delete", "--ignore-not-found", "--timeout=60s"];
    words.extend(NAMES);
    let deleted = cluster.kubectl(&words);
    outcome?;
    deleted?;
    Ok(())
}

fn write_and_read(cluster: &Cluster, folder: &str) -> Result<()> {
    cluster.kubectl_with(&["--namespace", "demo", "apply", "-f", "-"], &storage(folder))?;
    let bound =
        ["--namespace", "demo", "wait", "--for=jsonpath={.status.phase}=Bound", "pvc/kept", "--timeout=60s"];
    cluster.kubectl(&bound)?;
    cluster.kubectl_with(&["apply", "-f", "-"], &pod("kept-writer", "echo what was written > /kept/file"))?;
    until_ended(cluster, "kept-writer")?;
    cluster.kubectl_with(&["apply", "-f", "-"], &pod("kept-reader", "cat /kept/file"))?;
    until_ended(cluster, "kept-reader")?;
    let said = cluster.kubectl(&["--namespace", "demo", "logs", "kept-reader"])?;
    ensure!(said == "what was written\n", "the second pod read {said:?}");
    Ok(())
}

fn until_ended(cluster: &Cluster, pod: &str) -> Result<()> {
    let words = ["--namespace", "demo", "get", "pod", pod, "-o", "jsonpath={.status.phase}"];
    eventually(PATIENCE, || {
        let phase = cluster.kubectl(&words)?;
        ensure!(phase == "Succeeded", "pod {pod} is {phase}");
        Ok(())
    })
}

fn storage(folder: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: kept}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  hostPath: {{path: {folder}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: kept}}
spec:
  storageClassName: by-hand
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 500Mi}}}}
"
    )
}

fn pod(name: &str, line: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: demo}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: penstock.local/demo:1
    command: [sh, -c, {line:?}]
    volumeMounts: [{{name: kept, mountPath: /kept}}]
  volumes: [{{name: kept, persistentVolumeClaim: {{claimName: kept}}}}]
"
    )
}
