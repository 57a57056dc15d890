//! Debian's cloud kernels, unpacked below the target folder: downloaded with lists and sources of our own, so that neither
//! the machine's package sources nor its boot loader hear of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{artifacts, command};

/// A kernel to test on.
pub struct Kernel {
    pub version: &'static str,
    /// The Debian release whose `linux-image-cloud-amd64` it is.
    release: &'static str,
}

/// All of them. 6.1 is the last without links at interfaces (tcx).
pub const ALL: &[Kernel] = &[
    Kernel { version: "6.1", release: "bookworm-security" },
    Kernel { version: "6.12", release: "bookworm-backports" },
];

const PACKAGE: &str = "linux-image-cloud-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org";

/// Where everything of the machines is.
pub fn folder() -> PathBuf {
    artifacts::target().join("vm")
}

/// The kernels a user means.
pub fn named(name: &str) -> Result<Vec<&'static Kernel>> {
    let found: Vec<_> = ALL.iter().filter(|it| name == "all" || it.version == name).collect();
    if found.is_empty() {
        let known: Vec<_> = ALL.iter().map(|it| it.version).collect();
        bail!("--kernel {name}: there is {} and `all`", known.join(", "));
    }
    Ok(found)
}

impl Kernel {
    /// Whether it is unpacked.
    pub fn is_there(&self) -> bool {
        self.image().is_ok()
    }

    /// The kernel itself.
    pub fn image(&self) -> Result<PathBuf> {
        first_in(&self.unpacked().join("boot"), |name| name.starts_with("vmlinuz"))
    }

    /// The folder of its modules.
    pub fn modules(&self) -> Result<PathBuf> {
        let root = self.unpacked();
        let modules = ["usr/lib/modules", "lib/modules"].map(|it| root.join(it));
        let modules = modules.iter().find(|it| it.is_dir()).context("the kernel's package has no modules")?;
        Ok(first_in(modules, |_| true)?.join("kernel"))
    }

    /// Unpacks it if it is not there, and downloads it before if need be.
    pub fn ensure(&self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let package = match self.downloaded() {
            Ok(package) => package,
            Err(_) => self.download()?,
        };
        println!("  unpacking {}", package.display());
        let out = self.unpacked();
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        command::capture("dpkg-deb", &["-x".as_ref(), package.as_os_str(), out.as_os_str()])?;
        self.image().map(drop)
    }

    fn unpacked(&self) -> PathBuf {
        folder().join(self.version)
    }

    fn downloaded(&self) -> Result<PathBuf> {
        let start = format!("linux-image-{}.", self.version);
        first_in(&folder().join("packages"), |name| name.starts_with(&start) && name.ends_with(".deb"))
    }

    fn download(&self) -> Result<PathBuf> {
        println!(
            "  downloading Linux {} ({PACKAGE} of Debian {}, about 30 MB) to {}: the programs are tested on it",
            self.version,
            self.release,
            folder().display()
        );
        let apt = Apt::prepare()?;
        let shown = apt.run("apt-cache", &["show", &format!("{PACKAGE}/{}", self.release)])?;
        let needed = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
        let needed = needed.and_then(|it| it.split([' ', ',']).next());
        let needed = needed.with_context(|| format!("{PACKAGE} of {} names no kernel", self.release))?;
        apt.run("apt-get", &["download", "-qq", needed])
            .with_context(|| format!("cannot download {needed}"))?;
        self.downloaded()
    }
}

/// apt with sources and lists of our own.
struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn prepare() -> Result<Self> {
        if !command::is_on_path("apt-get") {
            bail!(
                "this machine has no apt-get: put the linux-image packages of Debian into {}",
                folder().join("packages").display()
            );
        }
        let folder = folder();
        for part in ["packages", "lists/partial"] {
            let part = folder.join(part);
            std::fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = folder.join("sources.list");
        let lines = [("debian-security", "bookworm-security"), ("debian", "bookworm-backports")].map(
            |(archive, release)| format!("deb [signed-by={KEYRING}] {MIRROR}/{archive} {release} main\n"),
        );
        std::fs::write(&sources, lines.concat()).context("cannot write the package sources")?;
        let options = [
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State::Lists={}", folder.join("lists").display()),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
        ];
        let apt = Self { folder: folder.join("packages"), options: options.to_vec() };
        apt.run("apt-get", &["update", "-qq"]).context("cannot read Debian's package lists")?;
        Ok(apt)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new(program);
        command.current_dir(&self.folder).args(words);
        command.args(self.options.iter().flat_map(|option| ["-o", option]));
        let output = command.output().with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The first entry of a folder, by name, that fits.
fn first_in(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names: Vec<_> =
        entries.flatten().filter(|it| fits(&it.file_name().to_string_lossy())).map(|it| it.path()).collect();
    names.sort();
    names.into_iter().next().with_context(|| format!("nothing that fits is in {}", folder.display()))
}
