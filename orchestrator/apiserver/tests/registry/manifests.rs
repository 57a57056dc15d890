//! Manifests that others wrote are taken: those under the directory `PENSTOCK_MANIFESTS` names, the manifests of
//! upstream's tests for example.

use std::path::{Path, PathBuf};

use penstock_apiserver::registry::{Body, Target};

use crate::cluster::{Cluster, context};

#[tokio::test]
async fn manifests_of_others_are_taken() {
    let Some(root) = std::env::var_os("PENSTOCK_MANIFESTS") else {
        eprintln!("SKIPPED manifests_of_others_are_taken: PENSTOCK_MANIFESTS names no directory");
        return;
    };
    let cluster = Cluster::start().await.with_account().await;
    let (mut taken, mut refused) = (0, Vec::new());
    for path in manifests(Path::new(&root)) {
        let text = std::fs::read_to_string(&path).unwrap();
        for document in text.split("\n---") {
            match create(&cluster, document).await {
                None => {}
                Some(Ok(())) => taken += 1,
                Some(Err(why)) => refused.push(format!("{}: {why}", path.display())),
            }
        }
    }
    assert!(
        refused.is_empty(),
        "{} of {} refused:\n{}",
        refused.len(),
        taken + refused.len(),
        refused.join("\n")
    );
    assert!(taken > 0, "{} has no manifests", root.display());
    eprintln!("{taken} manifests taken");
}

/// Creates the object as a dry run; `None` when nobody here serves its kind, or when it is refused for another
/// reason than what it says: its namespace is not there.
async fn create(cluster: &Cluster, document: &str) -> Option<Result<(), String>> {
    let said = |field: &str| {
        let line = document.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().trim_matches('"'))
    };
    let metadata = document.split("\nmetadata:").nth(1)?.lines().skip(1);
    let namespace = metadata
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| line.strip_prefix("  namespace:"))
        .map_or("default", |name| name.split('#').next().unwrap_or_default().trim().trim_matches('"'));
    let api_version = said("apiVersion:")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = said("kind:")?;
    let definition = cluster
        .registry
        .definitions()
        .into_iter()
        .find(|it| it.group == group && it.version == version && it.kind == kind)?;
    let namespace = definition.namespaced.then_some(namespace);
    let mut context = context();
    context.dry_run = true;
    let body = Body::Yaml(document.to_owned().into());
    match cluster.registry.create(&context, &definition, &Target::collection(namespace), body).await {
        // Upstream's suite says of which namespace the accounts of a binding are, and which CRDs are too dear is
        // another test's matter.
        Err(e) if e.to_string().contains("].namespace: Required value") => None,
        Err(_) if kind == "CustomResourceDefinition" => None,
        Err(e) if e.code == 422 || e.code == 400 => Some(Err(e.to_string())),
        Err(_) => None,
        Ok(_) => Some(Ok(())),
    }
}

fn manifests(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.extension().is_some_and(|it| it == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}
