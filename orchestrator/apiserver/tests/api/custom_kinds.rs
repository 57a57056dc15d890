//! Custom kinds as stock kubectl meets them: from the definition to the end of the last object.

use std::path::Path;

use crate::cluster::Cluster;
use crate::kubectl::{KUBECTL, Kubectl};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec, description: When it runs.}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            description: What the table asks for.
            required: [cronSpec]
            properties:
              cronSpec: {type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'}
              image: {type: string, description: The image to run.}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              color: {type: string, enum: [red, green]}
              port: {x-kubernetes-int-or-string: true}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            properties:
              replicas: {type: integer}
              selector: {type: string}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

const OBJECT: &str = r#"
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: my-crontab, labels: {a: b}}
spec: {cronSpec: "* * * * */5", image: my-image, color: red, port: http, free: {any: [thing]}}
"#;

struct Lab {
    cluster: Cluster,
    kubectl: Kubectl,
}

impl Lab {
    /// None where there is no kubectl.
    async fn start() -> anyhow::Result<Option<Self>> {
        if !Path::new(KUBECTL).exists() {
            println!("SKIPPED: {KUBECTL} is not installed");
            return Ok(None);
        }
        let cluster = Cluster::start().await?;
        let home = cluster.directory.path().to_owned();
        let kubectl = Kubectl { kubeconfig: cluster.kubeconfig("admin", &["system:masters"])?, home };
        Ok(Some(Self { cluster, kubectl }))
    }

    fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.kubectl.home.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Applies the definition and waits for it as people do.
    async fn define(&self) -> anyhow::Result<()> {
        let definition = self.file("crd.yaml", DEFINITION)?;
        self.kubectl.ok(&["apply", "-f", &definition]).await?;
        let crd = "crd/crontabs.stable.example.com";
        self.kubectl.ok(&["wait", "--for=condition=Established", crd, "--timeout=10s"]).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_is_defined_used_and_removed() -> anyhow::Result<()> {
    let Some(lab) = Lab::start().await? else { return Ok(()) };
    let kubectl = &lab.kubectl;
    lab.define().await?;
    let object = lab.file("object.yaml", OBJECT)?;
    let created = kubectl.ok(&["apply", "-f", &object]).await?;
    assert!(created.contains("crontab.stable.example.com/my-crontab created"), "{created}");
    assert!(kubectl.ok(&["apply", "-f", &object]).await?.contains("unchanged"));

    // Names, columns, documentation.
    let resources =
        kubectl.ok(&["api-resources", "--cached=false", "--api-group=stable.example.com"]).await?;
    assert!(resources.lines().any(|l| l.starts_with("crontabs") && l.contains("ct")), "{resources}");
    let table = kubectl.ok(&["get", "ct"]).await?;
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "SPEC", "REPLICAS", "AGE"], "{table}");
    assert_eq!(&lines[1][..7], ["my-crontab", "*", "*", "*", "*", "*/5", "1"], "{table}");
    assert!(kubectl.ok(&["get", "all"]).await?.contains("crontab.stable.example.com/my-crontab"));
    let explained = kubectl.ok(&["explain", "crontabs.spec"]).await?;
    assert!(explained.contains("What the table asks for.") && explained.contains("cronSpec"), "{explained}");
    let explained = kubectl.ok(&["explain", "--output=plaintext-openapiv2", "crontabs.spec.image"]).await?;
    assert!(explained.contains("The image to run."), "{explained}");

    // Subresources and patches.
    kubectl.ok(&["scale", "crontab", "my-crontab", "--replicas=3"]).await?;
    assert_eq!(kubectl.ok(&["get", "ct", "my-crontab", "-o", "jsonpath={.spec.replicas}"]).await?, "3");
    let generation =
        kubectl.ok(&["get", "ct", "my-crontab", "-o", "jsonpath={.metadata.generation}"]).await?;
    assert_eq!(generation, "2");
    let status = r#"{"status":{"replicas":2},"spec":{"replicas":9}}"#;
    kubectl.ok(&["patch", "ct", "my-crontab", "--subresource=status", "--type=merge", "-p", status]).await?;
    let both = "jsonpath={.spec.replicas} {.status.replicas} {.spec.free.any[0]}";
    assert_eq!(kubectl.ok(&["get", "ct", "my-crontab", "-o", both]).await?, "3 2 thing");
    let operation = r#"[{"op":"replace","path":"/spec/color","value":"green"}]"#;
    kubectl.ok(&["patch", "ct", "my-crontab", "--type=json", "-p", operation]).await?;
    let refusal = kubectl.refused(&["patch", "ct", "my-crontab", "--type=strategic", "-p", "{}"]).await?;
    assert!(
        refusal.contains("415") || refusal.contains("nsupported") || refusal.contains("not supported"),
        "{refusal}"
    );

    // Selectors.
    assert!(kubectl.ok(&["get", "ct", "--field-selector=spec.color=green"]).await?.contains("my-crontab"));
    assert!(!kubectl.ok(&["get", "ct", "--field-selector=spec.color=red"]).await?.contains("my-crontab"));
    let refusal = kubectl.refused(&["get", "ct", "--field-selector=spec.image=x"]).await?;
    assert!(refusal.contains("field label not supported: spec.image"), "{refusal}");

    // Another version of the same object.
    let other =
        kubectl.run(&["get", "crontabs.v1beta1.stable.example.com", "my-crontab", "-o", "yaml"]).await?;
    let (out, warned) = (String::from_utf8_lossy(&other.stdout), String::from_utf8_lossy(&other.stderr));
    assert!(out.contains("apiVersion: stable.example.com/v1beta1") && out.contains("color: green"), "{out}");
    assert!(warned.contains("stable.example.com/v1beta1 CronTab is deprecated"), "{warned}");

    // With the definition go its objects and its paths.
    kubectl.ok(&["delete", "crd", "crontabs.stable.example.com", "--timeout=50s"]).await?;
    let gone = kubectl.refused(&["get", "--raw", "/apis/stable.example.com/v1/crontabs"]).await?;
    assert!(gone.contains("NotFound") || gone.contains("could not find"), "{gone}");
    lab.define().await?;
    let again =
        kubectl.ok(&["get", "--raw", "/apis/stable.example.com/v1/namespaces/default/crontabs"]).await?;
    assert!(again.contains("\"items\":[]"), "nothing of the old is in the new: {again}");
    lab.cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_is_told_by_its_field() -> anyhow::Result<()> {
    let Some(lab) = Lab::start().await? else { return Ok(()) };
    let kubectl = &lab.kubectl;
    lab.define().await?;
    let bad = OBJECT.replace("\"* * * * */5\"", "daily").replace("red", "blue") + "status: {}\n";
    let bad = lab.file("bad.yaml", &bad.replace("image: my-image", "replicas: 11"))?;
    let refusal = kubectl.refused(&["create", "-f", &bad, "--validate=false"]).await?;
    for expected in [
        r#"The CronTab "my-crontab" is invalid:"#,
        r#"* spec.color: Unsupported value: "blue": supported values: "red", "green""#,
        r#"* spec.cronSpec: Invalid value: "daily": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
        "* spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
    ] {
        assert!(refusal.contains(expected), "{expected}\n{refusal}");
    }
    let typo = lab.file("typo.yaml", &OBJECT.replace("image:", "imagee:"))?;
    let refusal = kubectl.refused(&["create", "-f", &typo]).await?;
    assert!(refusal.contains(r#"unknown field "spec.imagee""#), "{refusal}");
    let warned = kubectl.run(&["create", "-f", &typo, "--validate=warn"]).await?;
    assert!(warned.status.success());
    assert!(String::from_utf8_lossy(&warned.stderr).contains(r#"unknown field "spec.imagee""#));
    let stored = kubectl.ok(&["get", "ct", "my-crontab", "-o", "yaml"]).await?;
    assert!(!stored.contains("imagee"), "{stored}");

    let broken = lab.file(
        "broken.yaml",
        &DEFINITION.replace("crontabs", "brokens").replace("type: integer, minimum", "type: int, minimum"),
    )?;
    let refusal = kubectl.refused(&["create", "-f", &broken]).await?;
    assert!(
        refusal.contains(r#"spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[replicas].type: Unsupported value: "int""#),
        "{refusal}"
    );
    lab.cluster.stop().await;
    Ok(())
}
