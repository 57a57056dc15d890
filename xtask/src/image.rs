//! `cargo xtask image`: OCI archives of our own images, written without a container daemon.
//!
//! An image is a list of files, an entry point and a name; [`write_archive`] turns it into one layer, its configuration,
//! a manifest and an index (OCI image specification 1.0). The same input gives the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{artifacts, command, packages};

/// The image that holds every pod's namespaces.
pub const PAUSE: &str = "penstock.local/pause:1";
/// The demo application, with a shell to look around in.
pub const DEMO: &str = "penstock.local/demo:1";

#[derive(clap::Args)]
pub struct Options {
    /// Folder to write the archives to
    #[arg(long, default_value = "target/images")]
    out: PathBuf,
}

/// The files and start command of one image.
struct Image {
    name: &'static str,
    entrypoint: &'static [&'static str],
    /// Path in the image (no leading slash) and what is there.
    files: BTreeMap<String, Content>,
}

enum Content {
    File { bytes: Vec<u8>, mode: u32 },
    Link(String),
    Folder { mode: u32 },
}

pub fn run(options: &Options) -> Result<()> {
    packages::ensure(packages::FOR_CLUSTER)?;
    for archive in build(&options.out)? {
        println!("{}", archive.display());
    }
    Ok(())
}

/// Builds every image into `folder` and returns the archives.
pub fn build(folder: &Path) -> Result<Vec<PathBuf>> {
    let demo = std::fs::read(artifacts::build_static_demo()?).context("cannot read the demo program")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut archives = Vec::new();
    for image in [pause(&demo), with_shell(&demo)?] {
        let file = folder.join(format!("{}.tar", image.name.replace(['/', ':'], "_")));
        let bytes = write_archive(&image)?;
        std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
        archives.push(file);
    }
    Ok(archives)
}

fn pause(demo: &[u8]) -> Image {
    let files = BTreeMap::from([program("demo", demo)]);
    Image { name: PAUSE, entrypoint: &["/demo", "pause"], files }
}

fn with_shell(demo: &[u8]) -> Result<Image> {
    let busybox =
        std::fs::read("/bin/busybox").context("cannot read /bin/busybox of the package busybox-static")?;
    let mut files = BTreeMap::from([
        ("bin".to_owned(), Content::Folder { mode: 0o755 }),
        ("etc".to_owned(), Content::Folder { mode: 0o755 }),
        ("tmp".to_owned(), Content::Folder { mode: 0o1777 }),
        program("bin/busybox", &busybox),
        program("bin/demo", demo),
        text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
        text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ]);
    for applet in command::capture("/bin/busybox", &["--list"])?.lines() {
        files.entry(format!("bin/{applet}")).or_insert_with(|| Content::Link("/bin/busybox".to_owned()));
    }
    Ok(Image { name: DEMO, entrypoint: &["/bin/demo"], files })
}

fn program(path: &str, bytes: &[u8]) -> (String, Content) {
    (path.to_owned(), Content::File { bytes: bytes.to_vec(), mode: 0o755 })
}

fn text(path: &str, text: &str) -> (String, Content) {
    (path.to_owned(), Content::File { bytes: text.as_bytes().to_vec(), mode: 0o644 })
}

fn write_archive(image: &Image) -> Result<Vec<u8>> {
    let layer = write_layer(image)?;
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut top = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    top["annotations"] =
        json!({ "io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [top] }))?;
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut archive, "index.json", &index, 0o644)?;
    for blob in [&config, &manifest, &layer] {
        append(&mut archive, &format!("blobs/sha256/{}", hex(blob)), blob, 0o644)?;
    }
    Ok(archive.into_inner()?)
}

fn write_layer(image: &Image) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, content) in &image.files {
        match content {
            Content::File { bytes, mode } => append(&mut layer, path, bytes, *mode)?,
            Content::Folder { mode } => {
                let mut header = header(tar::EntryType::Directory, 0, *mode);
                layer.append_data(&mut header, format!("{path}/"), std::io::empty())?;
            }
            Content::Link(target) => {
                let mut header = header(tar::EntryType::Symlink, 0, 0o777);
                layer.append_link(&mut header, path, target)?;
            }
        }
    }
    Ok(layer.into_inner()?)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, bytes.len() as u64, mode);
    archive.append_data(&mut header, path, bytes).with_context(|| format!("cannot add {path} to the archive"))
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name OCI has for this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive() {
        let first = write_archive(&pause(b"program")).unwrap();
        assert_eq!(first, write_archive(&pause(b"program")).unwrap());
        assert_ne!(first, write_archive(&pause(b"another")).unwrap());
    }

    #[test]
    fn an_archive_names_its_image_and_holds_every_blob_its_manifest_names() {
        let bytes = write_archive(&pause(b"program")).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let top = &index["manifests"][0];
        assert_eq!(top["annotations"]["io.containerd.image.name"], PAUSE);
        let blob =
            |digest: &serde_json::Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        let manifest: serde_json::Value = serde_json::from_slice(&files[&blob(&top["digest"])]).unwrap();
        assert!(files.contains_key(&blob(&manifest["config"]["digest"])));
        assert!(files.contains_key(&blob(&manifest["layers"][0]["digest"])));
    }
}
