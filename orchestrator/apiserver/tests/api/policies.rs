//! Admission policies as clients meet them: kubectl shows warnings and refusals, `authorizer` knows who asks.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use penstock_apiserver::User;
use serde_json::json;

use crate::cluster::Cluster;
use crate::kubectl::Kubectl;

const PATIENCE: Duration = Duration::from_secs(60);

const POLICIES: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: labelled}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations:
  - {expression: "has(object.metadata.labels) && 'team' in object.metadata.labels", message: nobody owns it}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: labelled}
spec: {policyName: labelled, validationActions: [Warn, Audit]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: guarded}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  matchConditions:
  - {name: guarded, expression: "object.metadata.name.startsWith('guarded')"}
  validations:
  - expression: authorizer.group('').resource('secrets').namespace(object.metadata.namespace).check('delete').allowed()
    messageExpression: "request.userInfo.username + ' may not delete secrets'"
    reason: Forbidden
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: guarded}
spec: {policyName: guarded, validationActions: [Deny]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_warnings_and_the_authorizer_knows_who_asks() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let kubeconfig = cluster.kubeconfig("admin", &["system:masters"])?;
    let kubectl = Kubectl { kubeconfig, home: cluster.directory.path().to_owned() };
    let file = cluster.directory.path().join("policies.yaml");
    std::fs::write(&file, POLICIES)?;
    kubectl.ok(&["apply", "-f", &file.to_string_lossy()]).await?;

    let started = Instant::now();
    let warning = loop {
        let name = format!("m-{}", started.elapsed().as_millis());
        let output = kubectl.run(&["create", "configmap", &name]).await?;
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "{shown}");
        if !shown.is_empty() {
            break shown;
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "the policy is not followed");
    };
    assert_eq!(
        warning.trim(),
        "Warning: Validation failed for ValidatingAdmissionPolicy 'labelled' with binding 'labelled': nobody owns it"
    );
    kubectl.ok(&["create", "configmap", "guarded-by-admin"]).await?;

    let role = ["create", "role", "maker", "--verb=create", "--resource=configmaps"];
    kubectl.ok(&role).await?;
    kubectl.ok(&["create", "rolebinding", "ann", "--role=maker", "--user=ann"]).await?;
    let ann = User { name: "ann".into(), ..User::default() };
    let hers: Api<ConfigMap> = Api::default_namespaced(cluster.server.client(ann));
    let map = |name: &str| serde_json::from_value(json!({"metadata": {"name": name}}));
    while let Err(error) = hers.create(&PostParams::default(), &map("plain")?).await {
        anyhow::ensure!(started.elapsed() < PATIENCE, "the binding never took effect: {error}");
        tokio::task::yield_now().await;
    }
    let refused = hers.create(&PostParams::default(), &map("guarded-by-ann")?).await.expect_err("not hers");
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            403,
            "configmaps \"guarded-by-ann\" is forbidden: ValidatingAdmissionPolicy 'guarded' with binding 'guarded' \
             denied request: ann may not delete secrets"
        )
    );
    cluster.stop().await;
    Ok(())
}
