//! `cargo xtask codegen`: derives the schema table of the built-in kinds from published crates.
//!
//! k8s-openapi gives JSON names, types, docs and what is required; k8s-pb gives protobuf numbers and the markers
//! in its comments; a committed supplement gives the facts neither knows (its header says which). The crates'
//! sources are fetched by cargo through a throw-away manifest, so that neither becomes a dependency for this.
//! With `--check` nothing is written and a stale table is an error.

mod emit;
mod json_side;
mod proto_side;
mod supplement;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const SOURCES: &[(&str, &str)] = &[("k8s-openapi", "0.29.0"), ("k8s-pb", "0.9.0")];
const LEVEL: &str = "v1_36";
const TABLE: &str = "orchestrator/schema/src/table/builtin.txt";
const SUPPLEMENT: &str = "orchestrator/schema/src/table/supplement.txt";

/// Runs the verb. `args`: nothing, or `--check`.
pub fn run(args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [only] if only == "--check" => true,
        other => bail!("codegen takes --check or nothing, got {other:?}"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let crates = ensure_sources()?;
    let types = json_side::read(&crates[0].join("src").join(LEVEL))?;
    let messages = proto_side::read(&crates[1].join("src"))?;
    let supplement = supplement::read(&root.join(SUPPLEMENT))?;
    let made = emit::table(&types, &messages, &supplement)?;
    for line in &made.without_number {
        println!("no protobuf number: {line}");
    }
    let path = root.join(TABLE);
    if check {
        if fs::read_to_string(&path).unwrap_or_default() != made.text {
            bail!("{TABLE} is stale: run `cargo xtask codegen`");
        }
    } else {
        fs::write(&path, &made.text).with_context(|| format!("writing {}", path.display()))?;
    }
    println!("{TABLE}: {} types, {} fields, {} bytes", made.types, made.fields, made.text.len());
    Ok(())
}

/// Lets cargo fetch the sources and says where they are, in the order of [`SOURCES`].
fn ensure_sources() -> Result<Vec<PathBuf>> {
    let dir = tempfile::tempdir()?;
    let mut manifest = String::from(
        "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n",
    );
    for (name, version) in SOURCES {
        // k8s-openapi refuses to be resolved into a build without a level, which never happens here.
        manifest.push_str(&format!("{name} = {{ version = \"={version}\", default-features = false }}\n"));
    }
    fs::create_dir(dir.path().join("src"))?;
    fs::write(dir.path().join("src/lib.rs"), "")?;
    fs::write(dir.path().join("Cargo.toml"), manifest)?;
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(dir.path().join("Cargo.toml"))
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo could not fetch the sources: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    SOURCES
        .iter()
        .map(|(name, version)| {
            let found = packages.iter().find(|p| p["name"] == *name && p["version"] == *version);
            let manifest = found
                .and_then(|p| p["manifest_path"].as_str())
                .with_context(|| format!("{name} {version}"))?;
            Ok(Path::new(manifest).parent().context("a manifest lies in a folder")?.to_owned())
        })
        .collect()
}

/// Every `.rs` file below a folder, sorted.
fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    out.sort();
    Ok(out)
}

/// The text of the `///` lines of an item.
fn doc_of(attrs: &[syn::Attribute]) -> String {
    let mut lines = Vec::new();
    for attr in attrs {
        if let syn::Meta::NameValue(pair) = &attr.meta
            && pair.path.is_ident("doc")
            && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value
        {
            let text = text.value();
            lines.push(text.strip_prefix(' ').unwrap_or(&text).to_owned());
        }
    }
    lines.join("\n")
}

/// `ClusterIP`, `cluster_ip` and `clusterIP` are one name to the join.
fn folded(name: &str) -> String {
    name.trim_start_matches("r#")
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_crates_fold_to_one() {
        for (json, rust) in [
            ("clusterIPs", "cluster_i_ps"),
            ("awsElasticBlockStore", "aws_elastic_block_store"),
            ("$ref", "r#ref"),
        ] {
            assert_eq!(folded(json), folded(rust));
        }
        assert_eq!(folded("x-kubernetes-embedded-resource"), folded("x_kubernetes_embedded_resource"));
    }

    #[test]
    fn messages_are_found_by_openapi_name() {
        let name = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIServiceSpec";
        assert_eq!(proto_side::key(name), "kube_aggregator::pkg::apis::apiregistration::v1::apiservicespec");
    }

    #[test]
    fn docs_of_an_item_are_its_lines() {
        let item: syn::ItemStruct = syn::parse_quote! {
            /// One.
            ///
            /// Two.
            struct S;
        };
        assert_eq!(doc_of(&item.attrs), "One.\n\nTwo.");
    }
}
