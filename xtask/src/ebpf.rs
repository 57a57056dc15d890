//! `cargo xtask ebpf`: builds the eBPF programs, with whichever toolchain this machine has.
//!
//! The programs need Rust's library built from source for a target that has none, and an LLVM linker for BPF. Two
//! toolchains can do it (docs/adr/0002-ebpf-toolchain.md); what is missing of one is installed, and said.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::{artifacts, command, packages};

const TARGET: &str = "bpfel-unknown-none";
/// The newest linker whose LLVM matches Debian's; its own default would build against whatever LLVM it finds.
const LINKER_VERSION: &str = "0.13.0";
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "llvm-22-dev"];
/// The programs use features of this release of Rust.
const RUST_MINOR_MIN: u32 = 88;

#[derive(clap::Args)]
pub struct Options {
    /// Build even when the object is newer than everything it is made of
    #[arg(long)]
    force: bool,
}

/// A Rust toolchain that can build its own library.
enum Toolchain {
    /// rustup's nightly with `rust-src`.
    Nightly,
    /// Debian's rustc with its library's source, allowed to use unstable flags.
    Debian,
}

pub fn run(options: &Options) -> Result<()> {
    let object = object();
    if options.force && object.exists() {
        std::fs::remove_file(&object).with_context(|| format!("cannot remove {}", object.display()))?;
    }
    println!("{}", build()?.display());
    Ok(())
}

/// Builds the programs if needed and returns the object, `<target>/ebpf/penstock.bpf.o`.
pub fn build() -> Result<PathBuf> {
    let object = object();
    let source = artifacts::workspace().join("ebpf");
    if let Ok(built) = object.metadata().and_then(|meta| meta.modified())
        && newest(&source)? <= built
    {
        return Ok(object);
    }
    let toolchain = ensure_toolchain()?;
    let linker = ensure_linker(&toolchain)?;
    let folder = artifacts::target().join("ebpf").join("build");
    let flags =
        [format!("-Clinker={}", linker.display()), "-Clink-arg=--btf".to_owned(), "-Cdebuginfo=2".to_owned()];
    let mut cargo = match toolchain {
        Toolchain::Nightly => {
            let mut cargo = std::process::Command::new("rustup");
            cargo.args(["run", "nightly", "cargo"]);
            // The toolchain that runs this program is not the one that builds those.
            cargo.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            cargo
        }
        Toolchain::Debian => {
            let mut cargo = artifacts::cargo();
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            cargo
        }
    };
    cargo
        .current_dir(&source)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", &folder)
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "-Zbuild-std=core"]);
    command::show(&mut cargo).context("the eBPF programs do not build")?;
    let built = folder.join(TARGET).join("release").join("penstock");
    // Under another name first: a reader never sees half an object.
    let fresh = object.with_extension("new");
    std::fs::copy(&built, &fresh).with_context(|| format!("no object at {}", built.display()))?;
    std::fs::rename(&fresh, &object).with_context(|| format!("cannot write {}", object.display()))?;
    Ok(object)
}

fn object() -> PathBuf {
    artifacts::target().join("ebpf").join("penstock.bpf.o")
}

/// When anything the object is made of was last changed.
fn newest(folder: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let at = if kind.is_dir() {
            if entry.file_name() == "target" {
                continue;
            }
            newest_of(&entry.path())?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(at);
    }
    Ok(newest)
}

/// A folder counts itself too: its time tells of a file that was removed.
fn newest_of(folder: &Path) -> Result<SystemTime> {
    Ok(newest(folder)?.max(folder.metadata()?.modified()?))
}

// === Toolchains ===

fn ensure_toolchain() -> Result<Toolchain> {
    if has_nightly() {
        return Ok(Toolchain::Nightly);
    }
    if debian_can_build() {
        return Ok(Toolchain::Debian);
    }
    let mut tried = Vec::new();
    if command::is_on_path("apt-get") && nix::unistd::Uid::effective().is_root() {
        println!(
            "  installing {}: a Rust compiler with its library's source, to build the eBPF programs",
            DEBIAN_PACKAGES.join(" ")
        );
        match packages::install(DEBIAN_PACKAGES) {
            Ok(()) if debian_can_build() => return Ok(Toolchain::Debian),
            Ok(()) => tried.push(format!("Debian's rustc at {DEBIAN_RUSTC} is missing or too old")),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    if command::is_on_path("rustup") {
        println!("  installing rustup's nightly toolchain with rust-src: to build the eBPF programs");
        let arguments =
            ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        match command::capture("rustup", &arguments) {
            Ok(_) if has_nightly() => return Ok(Toolchain::Nightly),
            Ok(_) => tried.push("rustup installed nightly, but it has no library source".to_owned()),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    bail!(
        "no Rust toolchain here can build the eBPF programs: run `rustup toolchain install nightly --component rust-src`, \
         or on Debian `apt-get install {}`{}{}",
        DEBIAN_PACKAGES.join(" "),
        if tried.is_empty() { "" } else { ". Tried: " },
        tried.join("; ")
    )
}

fn has_nightly() -> bool {
    command::capture("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])
        .is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
}

fn debian_can_build() -> bool {
    let Ok(sysroot) = command::capture(DEBIAN_RUSTC, &["--print", "sysroot"]) else {
        return false;
    };
    let new_enough = command::capture(DEBIAN_RUSTC, &["--version"])
        .is_ok_and(|text| minor_version(&text) >= Some(RUST_MINOR_MIN));
    new_enough && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
}

/// The middle number of `rustc 1.96.0 (...)`.
fn minor_version(text: &str) -> Option<u32> {
    text.split_whitespace().nth(1)?.split('.').nth(1)?.parse().ok()
}

// === Linker ===

fn ensure_linker(toolchain: &Toolchain) -> Result<PathBuf> {
    if let Some(linker) = find_linker() {
        return Ok(linker);
    }
    println!("  installing bpf-linker (cargo install, a minute or two): links the eBPF programs");
    let mut install = artifacts::cargo();
    install.current_dir(artifacts::target().parent().unwrap_or(Path::new("/"))).args([
        "install",
        "--quiet",
        "bpf-linker",
    ]);
    install.args(["--version", LINKER_VERSION, "--locked"]);
    if matches!(toolchain, Toolchain::Debian) {
        if !Path::new(DEBIAN_LLVM).is_dir() {
            packages::install(&["llvm-22-dev"])?;
        }
        install.env("LLVM_PREFIX", DEBIAN_LLVM).args(["--no-default-features", "--features", "llvm-22"]);
    }
    command::show(&mut install).context("bpf-linker does not install")?;
    find_linker().context("bpf-linker is installed but not found: add cargo's bin folder to the PATH")
}

fn find_linker() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let beside_cargo = [cargo_home, home].into_iter().flatten().map(|folder| folder.join("bin"));
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    beside_cargo
        .chain(on_path.into_iter().flatten())
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_tells_its_version() {
        assert_eq!(
            minor_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some(96)
        );
        assert_eq!(minor_version("rustc 1.97.0-nightly (abc 2026-06-01)"), Some(97));
        assert_eq!(minor_version("something else"), None);
    }

    #[test]
    fn a_change_deep_in_the_sources_is_newer_than_the_object() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("src/concept");
        std::fs::create_dir_all(&deep).expect("folders");
        let file = deep.join("a.rs");
        std::fs::write(&file, "").expect("a file");
        let future = SystemTime::now() + std::time::Duration::from_secs(3600);
        std::fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_modified(future))
            .expect("a time");
        assert!(newest(folder.path()).expect("readable") >= future);
    }
}
