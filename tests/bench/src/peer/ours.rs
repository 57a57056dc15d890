//! Our own data plane in a world: loaded, told and attached by the code the node agent uses.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use penstock_dataplane::{Dataplane, Limits, LoadOptions, PodLink, Tc, Xdp};
use penstock_tests::netns::{Netns, ifindex};

use crate::fleet::{Port, desired};
use crate::stage::Stage;
use crate::world::{NODE, UPLINK, World};

/// A loaded data plane with its cgroup and bpf file system, which go with it.
pub struct Ours {
    pub dataplane: Dataplane,
    pub base: Base,
}

/// What a data plane is loaded into.
pub struct Base {
    pub options: LoadOptions,
    mounted: PathBuf,
}

impl Base {
    /// Mounts a bpf file system and makes a cgroup. Sizes are the agent's own, or larger where so many need it.
    pub fn new(stage: &Stage, services: u32, uplink_ifindex: Option<u32>) -> Result<Base> {
        let name = stage.fresh_name();
        let mounted = stage.folder.join(&name);
        std::fs::create_dir(&mounted).context("a folder for a bpf file system")?;
        mount(Some("bpf"), &mounted, Some("bpf"), MsFlags::empty(), None::<&str>).context("mounting bpf")?;
        let cgroup_v2 = stage.cgroup_root.join(&name);
        std::fs::create_dir(&cgroup_v2).with_context(|| format!("making {}", cgroup_v2.display()))?;
        let usual = Limits::default();
        let limits = Limits {
            services_max: usual.services_max.max((services + 1024).next_power_of_two()),
            vips_max: usual.vips_max.max(((services + 1024) * 2).next_power_of_two()),
            ..usual
        };
        let options = LoadOptions {
            object: stage.object.clone(),
            bpffs: mounted.join("penstock"),
            cgroup_v2,
            uplink_ifindex,
            services: true,
            xdp: Xdp::Auto,
            tc: Tc::Auto,
            node_ips: vec![NODE.into()],
            inside: Vec::new(),
            masquerade: false,
            limits,
            conversions: penstock_dataplane::CONVERSIONS,
        };
        Ok(Base { options, mounted })
    }

    /// Loads, as an agent that starts does. To be called in the node's namespace.
    pub fn load(&self) -> Result<Dataplane> {
        Dataplane::load(self.options.clone()).context("loading the data plane")
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = umount2(&self.mounted, MntFlags::MNT_DETACH);
        if let Err(error) = std::fs::remove_dir(&self.options.cgroup_v2) {
            eprintln!("left behind: {}: {error}", self.options.cgroup_v2.display());
        }
    }
}

impl Ours {
    /// Serves these services in a world.
    pub fn serve(stage: &Stage, world: &World, fleet: &[Port], xdp: Xdp) -> Result<Ours> {
        let uplink = world.node.run(|| ifindex(UPLINK))?;
        let mut base = Base::new(stage, fleet.len() as u32, Some(uplink))?;
        base.options.xdp = xdp;
        let dataplane = world.node.run(|| base.load())?;
        dataplane.apply(&desired(fleet)).context("telling the data plane of its services")?;
        attach(&dataplane, &world.node, &world.pod_links()?)?;
        Ok(Ours { dataplane, base })
    }

    /// The cgroup of the node's processes.
    pub fn cgroup(&self) -> &Path {
        &self.base.options.cgroup_v2
    }
}

fn attach(dataplane: &Dataplane, node: &Netns, links: &[(u32, Ipv4Addr)]) -> Result<()> {
    node.run(|| {
        links.iter().try_for_each(|(ifindex, address)| {
            let link = PodLink { ifindex: *ifindex, addresses: vec![(*address).into()], pod_mac: [0; 6] };
            dataplane.attach_pod(&link).with_context(|| format!("attaching to the link of {address}"))
        })
    })
}
