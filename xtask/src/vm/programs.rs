//! What runs in the machine: our test programs, the libraries they are linked to, a shell, and the script that runs them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::kernel::{self, Kernel};
use crate::{artifacts, command};

/// A test program of `penstock-tests`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// Every program is accepted.
    Verifier,
    /// Packets, by BPF_PROG_TEST_RUN.
    Packet,
    /// Real sockets.
    Dataplane,
    /// The userspace proxy.
    Fallback,
}

/// A built test program.
pub struct Program {
    test: Test,
    file: PathBuf,
}

/// Modules of the kernel that the tests need, in an order in which they load. What is built in has none.
const MODULES: &[&str] = &[
    "drivers/net/veth",
    "net/llc/llc",
    "net/802/stp",
    "net/bridge/bridge",
    "net/ipv4/inet_diag",
    "net/ipv4/tcp_diag",
    "net/ipv4/udp_diag",
    "lib/libcrc32c",
    "net/ipv4/udp_tunnel",
    "net/ipv6/ip6_udp_tunnel",
    "net/sctp/sctp",
    "net/sched/sch_ingress",
    "net/sched/cls_bpf",
];
/// Programs of this machine that the tests call.
const TOOLS: &[&str] = &["ip", "tc"];
/// The line that tells how a test program ended.
pub const ENDED: &str = "PENSTOCK-ENDED";

impl Test {
    const ALL: [Self; 4] = [Self::Verifier, Self::Packet, Self::Dataplane, Self::Fallback];

    fn name(self) -> &'static str {
        match self {
            Self::Verifier => "verifier",
            Self::Packet => "packet",
            Self::Dataplane => "dataplane",
            Self::Fallback => "fallback",
        }
    }
}

/// Builds the test programs.
pub fn build() -> Result<Vec<Program>> {
    let mut build = artifacts::cargo();
    build.args(["test", "--locked", "--package", "penstock-tests", "--no-run", "--message-format=json"]);
    for test in Test::ALL {
        build.args(["--test", test.name()]);
    }
    let output = build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the test programs do not build");
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built: Vec<_> = messages
        .filter_map(|it| {
            Some((it["target"]["name"].as_str()?.to_owned(), PathBuf::from(it["executable"].as_str()?)))
        })
        .collect();
    let program = |test: Test| {
        let found = built.iter().find(|(name, _)| name == test.name());
        let (_, file) = found.with_context(|| format!("cargo built no test program {}", test.name()))?;
        Ok(Program { test, file: file.clone() })
    };
    Test::ALL.into_iter().map(program).collect()
}

/// Everything the machine has, as a file. `filter` is what the names of tests must have in them.
pub fn initramfs(
    kernel: &Kernel,
    programs: &[Program],
    object: &Path,
    filter: Option<&str>,
) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for folder in ["/dev", "/proc", "/sys", "/tmp", "/run", "/var", "/etc", "/tests"] {
        archive.folder(folder);
    }
    archive.copy("/bin/busybox", &on_path("busybox")?)?;
    archive.link("/bin/sh", "busybox");
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for tool in TOOLS {
        files.push((format!("/bin/{tool}"), on_path(tool)?));
    }
    let mut run = Vec::new();
    for program in programs {
        run.push(program.test.name());
        files.push((format!("/tests/{}", program.test.name()), program.file.clone()));
    }
    let mut libraries = BTreeSet::new();
    for (path, from) in &files {
        archive.copy(path, from)?;
        libraries.extend(libraries_of(from)?);
    }
    for library in libraries {
        archive.copy(&library, Path::new(&library))?;
    }
    archive.copy("/penstock.bpf.o", object)?;
    let mut modules = Vec::new();
    for module in MODULES {
        if let Some(content) = module_of(&kernel.modules()?, module)? {
            let name = module.rsplit('/').next().unwrap_or(module);
            archive.file(&format!("/modules/{name}.ko"), &content);
            modules.push(name);
        }
    }
    archive.file("/init", script(&modules, &run, filter).as_bytes());
    let file = kernel::folder().join(format!("{}.cpio", kernel.version));
    std::fs::write(&file, archive.finish()).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// What the machine does from its start to its end.
fn script(modules: &[&str], tests: &[&str], filter: Option<&str>) -> String {
    let mut script = String::from(
        "#!/bin/sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin HOME=/tmp PENSTOCK_EBPF_OBJECT=/penstock.bpf.o\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mount -t tmpfs tmpfs /tmp\n\
         mount -t tmpfs tmpfs /run\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         ulimit -n 20000\n\
         ulimit -l unlimited\n\
         ip link set lo up\n\
         uname -a\n",
    );
    for module in modules {
        let _ = writeln!(script, "insmod /modules/{module}.ko");
    }
    let filter = filter.map(|it| format!(" '{}'", it.replace('\'', ""))).unwrap_or_default();
    for test in tests {
        // Software emulation is slow enough without tests waiting for each other's processors.
        let _ = writeln!(script, "echo 'Running {test}'");
        let _ = writeln!(script, "/tests/{test} --show-output --test-threads=2{filter}");
        let _ = writeln!(script, "echo {ENDED} {test} $?");
    }
    script.push_str("poweroff -f\n");
    script
}

/// The shared libraries a program is linked to, where it looks for them.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let listed = command::capture("ldd", &[program])?;
    let paths = listed.lines().flat_map(str::split_whitespace).filter(|word| word.starts_with('/'));
    Ok(paths.map(str::to_owned).collect())
}

/// A module's content; none when the kernel has it built in, or not at all.
fn module_of(modules: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let plain = modules.join(format!("{name}.ko"));
    if plain.exists() {
        return std::fs::read(&plain).map(Some).with_context(|| format!("cannot read {}", plain.display()));
    }
    let packed = modules.join(format!("{name}.ko.xz"));
    if !packed.exists() {
        return Ok(None);
    }
    let output = Command::new("busybox").arg("xzcat").arg(&packed).output().context("cannot run busybox")?;
    if !output.status.success() {
        bail!("cannot unpack {}: {}", packed.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(Some(output.stdout))
}

fn on_path(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found.find(|file| file.is_file()).with_context(|| format!("{program} is not on the PATH"))
}
