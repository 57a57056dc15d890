//! What must be true of this machine before anything is made on it, each with one clear sentence when it is not.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Disk that a cluster's images, containers and store need, and what a build needs besides.
const DISK_FREE_MIN_MIB: u64 = 2048;
/// The oldest kernel that the programs are tested on. Below it there may be the userspace proxy only, which is not what `up` is to
/// show.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Checks the machine itself; changes nothing.
pub fn check_machine(data: &Path) -> Result<()> {
    check_root()?;
    check_kernel()?;
    cgroup_v2_mount()?;
    check_disk(data)
}

fn check_root() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("a cluster needs root, for namespaces and eBPF: run `sudo -E cargo xtask up`");
    }
    Ok(())
}

/// Whether this machine has IPv6, which can be left out of a kernel or switched off.
pub fn has_ipv6() -> bool {
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    off.is_ok_and(|off| off.trim() == "0")
}

fn check_kernel() -> Result<()> {
    let release = nix::sys::utsname::uname().context("cannot ask the kernel for its version")?;
    let release = release.release().to_string_lossy().into_owned();
    let version =
        parse_release(&release).with_context(|| format!("cannot read the kernel version `{release}`"))?;
    if version < KERNEL_MIN {
        bail!("Linux {release} is too old: Penstock needs {}.{} or later", KERNEL_MIN.0, KERNEL_MIN.1);
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!("this kernel has no BTF (/sys/kernel/btf/vmlinux): use one built with CONFIG_DEBUG_INFO_BTF=y");
    }
    Ok(())
}

/// `6.18.44-generic` is (6, 18).
pub fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where cgroup v2 is mounted; it is not always `/sys/fs/cgroup`.
pub fn cgroup_v2_mount() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    mounts_of(&mounts, "cgroup2")
        .into_iter()
        .next()
        .context("cgroup v2 is not mounted anywhere: mount it with `mount -t cgroup2 cgroup2 /sys/fs/cgroup`")
}

/// The mount points of the v1 controllers, none on a pure v2 machine.
pub fn cgroup_v1_mounts() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(mounts_of(&mounts, "cgroup"))
}

fn mounts_of(mounts: &str, kind: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let point = fields.next()?;
            (fields.next()? == kind).then(|| PathBuf::from(point))
        })
        .collect()
}

fn check_disk(data: &Path) -> Result<()> {
    let existing = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(existing)
        .with_context(|| format!("cannot see how much disk {} has left", existing.display()))?;
    let free_mib = free.blocks_available() * free.fragment_size() / (1024 * 1024);
    if free_mib < DISK_FREE_MIN_MIB {
        bail!(
            "only {free_mib} MiB of disk are left at {}: a cluster needs {DISK_FREE_MIN_MIB} MiB; free some and run it again",
            existing.display()
        );
    }
    Ok(())
}

/// Fails when somebody listens where the API server is going to.
pub fn check_port(port: u16) -> Result<()> {
    match TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "port {port}, where the API server is to listen, cannot be used ({error}): \
            stop what holds it (`ss -ltnp sport = :{port}`) or choose another with --port"
        ),
    }
}

/// Instances of inotify a user may have: what several nodes full of pods need on one host.
const FILE_WATCHERS: u32 = 8192;
const FILE_WATCHERS_LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Raises the kernel's limit of file watchers where it is lower, and says so.
pub fn allow_file_watches() -> Result<()> {
    let said = std::fs::read_to_string(FILE_WATCHERS_LIMIT).unwrap_or_default();
    let limit: u32 = said.trim().parse().unwrap_or(0);
    if limit < FILE_WATCHERS {
        std::fs::write(FILE_WATCHERS_LIMIT, FILE_WATCHERS.to_string())
            .with_context(|| format!("cannot raise {FILE_WATCHERS_LIMIT} from {limit} to {FILE_WATCHERS}"))?;
        println!("- raised {FILE_WATCHERS_LIMIT} from {limit} to {FILE_WATCHERS}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_up_to_its_minor_version() {
        assert_eq!(parse_release("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(parse_release("6.6"), Some((6, 6)));
        assert_eq!(parse_release("linux"), None);
    }

    #[test]
    fn cgroup_mounts_are_told_apart_by_kind() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mounts_of(mounts, "cgroup2"), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert_eq!(mounts_of(mounts, "cgroup"), [PathBuf::from("/sys/fs/cgroup/cpu")]);
    }
}
