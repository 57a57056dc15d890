//! What a fresh machine lacks, installed from Debian: each package with the reason it is wanted.

use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::command;

/// A program we call, the Debian package that has it, and what it is for.
pub struct Wanted {
    pub program: &'static str,
    pub package: &'static str,
    pub why: &'static str,
}

/// What a running cluster needs besides our own binaries.
pub const FOR_CLUSTER: &[Wanted] = &[
    Wanted { program: "containerd", package: "containerd", why: "runs the pods' containers" },
    Wanted { program: "runc", package: "runc", why: "starts each container for containerd" },
    Wanted { program: "ip", package: "iproute2", why: "makes the nodes' namespaces, links and routes" },
    Wanted { program: "nsenter", package: "util-linux", why: "starts processes in a node's namespaces" },
    Wanted { program: "busybox", package: "busybox-static", why: "the shell inside the demo image" },
];

/// What the build needs besides Rust's own toolchain.
pub const FOR_BUILD: &[Wanted] = &[Wanted {
    program: "cc",
    package: "gcc libc6-dev",
    why: "compiles the C parts of the TLS library and links",
}];

/// What only the tests need.
pub const FOR_TESTS: &[Wanted] = &[
    Wanted { program: "etcd", package: "etcd-server", why: "the store's contract suite runs against it too" },
    Wanted { program: "curl", package: "curl", why: "fetches from the demo inside a pod" },
    Wanted { program: "nft", package: "nftables", why: "tests show that no packet filter rule is ours" },
    Wanted {
        program: "iptables-save",
        package: "iptables",
        why: "tests show that no packet filter rule is ours",
    },
];

/// What only `vm` needs.
pub const FOR_MACHINES: &[Wanted] = &[
    Wanted {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "runs other kernels than this machine's",
    },
    Wanted { program: "busybox", package: "busybox-static", why: "the shell in the virtual machine" },
    Wanted { program: "ip", package: "iproute2", why: "makes links and addresses in the virtual machine" },
];

/// The programs of `wanted` that are not there, if any.
pub fn missing(wanted: &[Wanted]) -> Option<String> {
    let missing: Vec<_> = wanted.iter().filter(|it| !command::is_on_path(it.program)).collect();
    let names: Vec<_> = missing.iter().map(|it| it.program).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Installs what of `wanted` is missing and says what and why.
pub fn ensure(wanted: &[Wanted]) -> Result<()> {
    let missing: Vec<&Wanted> = wanted.iter().filter(|it| !command::is_on_path(it.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for it in &missing {
        println!("  installing {} (Debian package {}): {}", it.program, it.package, it.why);
    }
    let packages: Vec<&str> = missing.iter().flat_map(|it| it.package.split_whitespace()).collect();
    install(&packages)?;
    for it in &missing {
        if !command::is_on_path(it.program) {
            bail!(
                "{} is still not on the PATH after installing {}; install it by hand",
                it.program,
                it.package
            );
        }
    }
    Ok(())
}

/// Installs Debian packages by name.
pub fn install(packages: &[&str]) -> Result<()> {
    if !command::is_on_path("apt-get") {
        bail!("{} must be installed by hand: this machine has no apt-get", packages.join(", "));
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "{} must be installed, which needs root: run `apt-get install {}`",
            packages.join(", "),
            packages.join(" ")
        );
    }
    static UPDATE: Once = Once::new();
    UPDATE.call_once(|| {
        let _ = command::capture("apt-get", &["update", "-qq"]);
    });
    let output = Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .output()
        .context("cannot run apt-get")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get could not install {}: {}", packages.join(", "), last_line(&said));
    }
    Ok(())
}

fn last_line(text: &str) -> &str {
    text.trim().lines().next_back().unwrap_or("it gave no reason")
}
