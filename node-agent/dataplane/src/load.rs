//! The data plane of one node, as the agent holds it: loaded once, applied for ever.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use penstock_ebpf_common::{CONFIG_MASQUERADE, Config, INSIDE_NODES, LocalPod, map};

use crate::counts;
use crate::endings::Endings;
use crate::growth::Made;
use crate::image::SETS_PER_SERVICE;
use crate::interfaces::{self, Interfaces, POD_HOOKS, TUNNEL_HOOK, Tc, TcKind, UPLINK_HOOKS};
use crate::kernel::{self, KernelMaps};
use crate::links::{CGROUP_HOOKS, Links, Place, XDP_PROGRAM};
use crate::migrate::{self, Conversion, Exchange};
use crate::picks::{self, Picks};
use crate::planner::Planner;
use crate::policies::PolicyMaps;
use crate::sink::MapSink;
use crate::sweep;
use crate::table;
use crate::uplink::{self, Uplink, Xdp, XdpKind};
use crate::{DataplaneError, Lack, lacks, node, sys};

/// Where the pieces are that a data plane is made of.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The compiled programs, `penstock.bpf.o`.
    pub object: PathBuf,
    /// This agent's own directory on a bpf file system, such as `/sys/fs/bpf/penstock`. Made when missing.
    pub bpffs: PathBuf,
    /// The node's directory in the cgroup v2 tree: processes below it are clients of the socket hooks.
    pub cgroup_v2: PathBuf,
    /// The interface by which traffic from outside arrives; none leaves NodePorts to clients on the node.
    pub uplink_ifindex: Option<u32>,
    /// Whether Services are served. If not, packets take the kernel's whole way, where the rules of another proxy are: only what
    /// pods send out of the cluster is changed, and what is applied all the same, for sockets of the node too.
    pub services: bool,
    /// How packets from outside are met on the uplink before tc, where Services are served.
    pub xdp: Xdp,
    /// By which way programs are attached at tc.
    pub tc: Tc,
    /// The node's addresses, at most one of a family: the sources of traffic that is to come back to it.
    pub node_ips: Vec<IpAddr>,
    /// Ranges of addresses that are of the cluster.
    pub inside: Vec<InsideRange>,
    /// Whether what pods send to addresses outside all of them leaves with the node's address.
    pub masquerade: bool,
    /// Sizes of the maps.
    pub limits: Limits,
    /// The earlier layouts of maps of which what is in them is carried over: [`crate::CONVERSIONS`].
    pub conversions: &'static [Conversion],
}

/// How much fits at least. Pinned maps that are smaller are replaced by larger ones, with what is in them; larger ones keep
/// their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Service ports. Each may have two backend sets.
    pub services_max: u32,
    /// Addresses by which service ports are reached.
    pub vips_max: u32,
    /// Ranges of clients that services with `loadBalancerSourceRanges` let in.
    pub source_ranges_max: u32,
    /// Flow halves, rounded up to a power of two; of those in the same two buckets the least recently used go first.
    pub flows_max: u32,
    /// Socket flow halves of UDP; the least recently used go first.
    pub socket_flows_max: u32,
    /// Connected sockets whose peer was translated, rounded up to a power of two; beyond half of it some may find no place: they
    /// work, but see the backend as their peer, and do not hear when it is gone.
    pub peers_max: u32,
    /// Remembered clients of services with session affinity; the least recently used go first.
    pub affinity_max: u32,
    /// Addresses of pods that network policies of this node's pods speak of.
    pub policy_peers_max: u32,
    /// Flows of pods with network policies; the least recently used go first.
    pub policy_flows_max: u32,
}

/// A range of the cluster's own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InsideRange {
    /// Its address.
    pub address: IpAddr,
    /// How many bits of it count.
    pub prefix: u8,
    /// Whose they are.
    pub of: Inside,
}

/// Whose addresses a range holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// Pods': what they send out of the cluster is masqueraded.
    Pods,
    /// Services'.
    Services,
    /// Of hosts outside that know the way to pods.
    Neighbours,
}

/// A pod's link, as the CNI made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// The host's side of the pod's veth, an interface of the agent's network namespace.
    pub ifindex: u32,
    /// The pod's addresses for which packets are led straight into it; none when its link has a queue that none may pass by.
    pub addresses: Vec<IpAddr>,
    /// The link address of the pod's end; zeros when nobody knows.
    pub pod_mac: [u8; 6],
}

/// The loaded programs and their maps. Dropping it detaches nothing: the pins keep traffic flowing.
pub struct Dataplane {
    /// Taken before `state` by whoever needs both.
    pub(crate) programs: RwLock<Ebpf>,
    pub(crate) interfaces: Interfaces,
    /// Where programs are to be whose places may go. Taken before `state`, and never by who has that.
    pub(crate) places: Mutex<Places>,
    state: Mutex<State>,
    /// The maps once more, for what is acted on a second time while others go on; none until then.
    pub(crate) again: Arc<Mutex<Option<KernelMaps>>>,
    /// The maps of network policy; none until they are used.
    pub(crate) policies: Mutex<Option<PolicyMaps>>,
    pub(crate) options: LoadOptions,
}

/// Where programs are to be, beyond what the options say.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The pods' links.
    pub(crate) pods: BTreeSet<u32>,
    /// The kind of XDP on the uplink.
    pub(crate) early: Option<XdpKind>,
    /// The overlay's device.
    pub(crate) tunnel: Option<u32>,
}

pub(crate) struct State {
    pub(crate) maps: KernelMaps,
    pub(crate) planner: Planner,
    pub(crate) limits: Limits,
    pub(crate) endings: Endings,
    /// As of the last look at how much is used.
    pub(crate) made: Option<Made>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services_max: 65_536,
            // Memory that is taken at once, by a hash map for its heads: what grows begins small.
            vips_max: 131_072,
            source_ranges_max: 65_536,
            flows_max: 65_536,
            // Takes its memory at once.
            socket_flows_max: 16_384,
            // Read place by place, empty or not, whenever a backend leaves that was used: they begin small and grow.
            peers_max: 32_768,
            affinity_max: 16_384,
            policy_peers_max: 16_384,
            // Takes its memory at once and does not grow; one that is evicted is judged anew.
            policy_flows_max: 32_768,
        }
    }
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Dataplane>();
};

// === impl Dataplane ===

impl Dataplane {
    /// Loads the programs, reuses pinned maps, and puts the programs in the place of those of an earlier agent.
    /// To be called in the node's network namespace.
    pub fn load(options: LoadOptions) -> Result<Self, DataplaneError> {
        ensure_directories(&options.bpffs)?;
        let loaded = load_newest(&options)?;
        let Loaded { programs, mut maps, limits, interfaces, places } = loaded;
        let image = maps.observe()?;
        sweep::forget_unkept(&mut maps, &image)?;
        let planner = Planner::recover(image, &limits);
        tracing::info!(
            services = planner.served(),
            pods = places.pods.len(),
            tc = interfaces.kind().name(),
            "data plane loaded"
        );
        Ok(Self {
            programs: RwLock::new(programs),
            interfaces,
            places: Mutex::new(places),
            state: Mutex::new(State {
                maps,
                planner,
                limits,
                endings: Endings::new(&options.cgroup_v2),
                made: None,
            }),
            again: Arc::default(),
            policies: Mutex::default(),
            options,
        })
    }

    /// Makes room for more while traffic flows: maps that are smaller than this are replaced by larger ones, with what is in
    /// them. What found no room before is to be said again. After an error everything is as it was, unless the kernel took
    /// only some of the programs twice: then the next attempt, or the next agent, makes that good.
    pub fn grow(&self, limits: &Limits) -> Result<(), DataplaneError> {
        // Nobody attaches the former programs or writes the former maps meanwhile.
        let mut programs = self.programs.write();
        let mut state = self.state.lock();
        let options = LoadOptions { limits: *limits, ..self.options.clone() };
        let loaded = load_newest(&options).or_else(|error| {
            if migrate::is_under_way(&options.bpffs)? { load_newest(&options) } else { Err(error) }
        })?;
        *programs = loaded.programs;
        state.maps = loaded.maps;
        *self.again.lock() = None;
        *self.policies.lock() = None;
        state.limits = loaded.limits;
        state.planner.grow(&loaded.limits);
        Ok(())
    }

    /// The agent's directory on its bpf file system.
    pub(crate) fn directory(&self) -> &Path {
        &self.options.bpffs
    }

    pub(crate) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Tells the programs of all nodes' addresses: what pods send there keeps their own. Kept when this agent ends.
    pub fn know_nodes(&self, addresses: &[IpAddr]) -> Result<(), DataplaneError> {
        self.state().maps.set_inside(&node::nodes(addresses), |of| of == INSIDE_NODES)
    }

    /// Tells the programs of the device by which an overlay leads to other nodes, or that there is none. What comes by it is
    /// looked at before others are sent anything by it that must be.
    pub fn know_tunnel(&self, ifindex: Option<u32>) -> Result<(), DataplaneError> {
        let programs = self.programs.read();
        let mut places = self.places.lock();
        if let Some(former) = places.tunnel.filter(|former| Some(*former) != ifindex) {
            self.state().maps.set_tunnel(0)?;
            self.interfaces.remove(TUNNEL_HOOK, former)?;
            places.tunnel = None;
        }
        let Some(ifindex) = ifindex else { return Ok(()) };
        if places.tunnel.is_none() {
            self.interfaces.ensure(TUNNEL_HOOK, loaded(&programs, TUNNEL_HOOK.name)?, ifindex)?;
            places.tunnel = Some(ifindex);
        }
        self.state().maps.set_tunnel(ifindex)
    }

    /// Puts the program on a pod's link and leads the pod's addresses there; again on the same link puts the newest program
    /// there.
    pub fn attach_pod(&self, pod: &PodLink) -> Result<(), DataplaneError> {
        let programs = self.programs.read();
        for hook in POD_HOOKS {
            self.interfaces.ensure(hook, loaded(&programs, hook.name)?, pod.ifindex)?;
        }
        self.places.lock().pods.insert(pod.ifindex);
        let node_mac = describe(pod.ifindex)?.mac;
        let entry = LocalPod { ifindex: pod.ifindex, pod_mac: pod.pod_mac, node_mac };
        // What is led straight into a pod passes another proxy's rules by.
        let addresses = if self.options.services { &pod.addresses[..] } else { &[] };
        self.state().maps.put_pod(addresses, &entry)
    }

    /// Takes a pod's addresses and the program off its link; a link that is already gone is no error.
    pub fn detach_pod(&self, ifindex: u32) -> Result<(), DataplaneError> {
        self.places.lock().pods.remove(&ifindex);
        // First the addresses: nothing is sent into a link that goes.
        self.state().maps.keep_pods(|link| link != ifindex && uplink::exists(link))?;
        POD_HOOKS.iter().try_for_each(|hook| self.interfaces.remove(hook, ifindex))
    }

    /// By which kind of XDP packets from outside are met, and on which interface; none when only tc meets them.
    pub fn xdp(&self) -> Result<Option<(XdpKind, u32)>, DataplaneError> {
        Links::below(&self.options.bpffs).observe_xdp()
    }

    /// What this kernel does not have.
    pub fn lacks(&self) -> Vec<Lack> {
        let has_tcx = loaded(&self.programs.read(), POD_HOOKS[0].name).is_ok_and(sys::has_tcx);
        let has_picks = self.state().maps.has_picks();
        [(Lack::Links, has_tcx), (Lack::Picks, has_picks), (Lack::Destruction, lacks::has_destruction())]
            .into_iter()
            .filter_map(|(lack, has)| (!has).then_some(lack))
            .collect()
    }

    /// By which way programs are attached at interfaces behind that.
    pub fn tc(&self) -> TcKind {
        self.interfaces.kind()
    }

    /// A loaded program by its name, to be run on packets of a test or a measurement.
    pub fn program(&self, name: &str) -> Option<MappedRwLockReadGuard<'_, Program>> {
        RwLockReadGuard::try_map(self.programs.read(), |programs| programs.program(name)).ok()
    }
}

/// Has the kernel verify every program, and attaches none. Returns how many it took: all, or all but those that pick entries
/// of maps.
pub fn verify(options: &LoadOptions) -> Result<usize, DataplaneError> {
    ensure_directories(&options.bpffs)?;
    Ok(load_object(options, None)?.programs().filter(|(_, program)| program.fd().is_ok()).count())
}

/// Takes all programs that an agent left below its directory on a bpf file system off their places, so that they no
/// longer serve what nobody tells them of. The maps stay for the next that loads. Returns how many programs there were.
/// To be called in the node's network namespace.
pub fn detach(bpffs: &Path) -> Result<usize, DataplaneError> {
    interfaces::remove_all(bpffs)
}

// === Loading ===

/// Programs that are attached, and their maps.
struct Loaded {
    programs: Ebpf,
    maps: KernelMaps,
    limits: Limits,
    interfaces: Interfaces,
    places: Places,
}

/// Loads and attaches the programs, with maps as large as is asked for.
fn load_newest(options: &LoadOptions) -> Result<Loaded, DataplaneError> {
    loop {
        let exchange = exchange_maps(options)?;
        let was_resumed = exchange.as_ref().is_some_and(Exchange::is_resumed);
        let loaded = load_plain(options)?;
        if let Some(exchange) = exchange {
            exchange.finish()?;
        }
        // What an earlier agent had begun may have had other sizes in mind.
        if !was_resumed {
            migrate::remove_leftovers(&options.bpffs)?;
            return Ok(loaded);
        }
    }
}

/// Loads and attaches the programs that know the newest maps alone.
fn load_plain(options: &LoadOptions) -> Result<Loaded, DataplaneError> {
    let programs = load_object(options, None)?;
    let mut maps = KernelMaps::open(&options.bpffs)?;
    maps.configure(&config(options)?, &node::inside(&options.inside))?;
    maps.pick_by(Picks::of(&programs).map(Arc::new));
    let limits = maps.limits()?;
    let (interfaces, places) = attach(options, &programs)?;
    // Of links that went while no agent was there.
    maps.keep_pods(uplink::exists)?;
    Ok(Loaded { programs, maps, limits, interfaces, places })
}

/// Puts the programs in the place of those of an earlier agent. Returns where they are.
fn attach(options: &LoadOptions, programs: &Ebpf) -> Result<(Interfaces, Places), DataplaneError> {
    let links = Links::below(&options.bpffs);
    let cgroup = Place::cgroup(&options.cgroup_v2)?;
    for (name, attach) in CGROUP_HOOKS {
        links.ensure(name, loaded(programs, name)?, &cgroup, *attach)?;
    }
    let interfaces = Interfaces::new(&options.bpffs, options.tc, loaded(programs, POD_HOOKS[0].name)?);
    if let Some(ifindex) = options.uplink_ifindex {
        for hook in UPLINK_HOOKS {
            interfaces.ensure(hook, loaded(programs, hook.name)?, ifindex)?;
        }
        interfaces.leave_other_uplinks(ifindex)?;
    }
    // After tc, which it leaves packets to.
    let early = meet_early(&links, programs, options)?;
    let tunnel = interfaces.refresh_tunnel(loaded(programs, TUNNEL_HOOK.name)?)?;
    let pods = interfaces.refresh_pods(|hook| loaded(programs, hook.name))?;
    Ok((interfaces, Places { pods, early, tunnel }))
}

/// Replaces the maps that are too small or of an earlier layout, if there are any, up to where programs are attached that
/// know both. The exchange is over when others are that know the new maps alone.
fn exchange_maps(options: &LoadOptions) -> Result<Option<Exchange>, DataplaneError> {
    let Some(exchange) = Exchange::begin(&options.bpffs, &sizes(&options.limits), options.conversions)?
    else {
        return Ok(None);
    };
    let prepare = || {
        let programs = load_object(options, Some(&exchange))?;
        let mut maps = KernelMaps::open(&options.bpffs)?;
        let before = exchange.bring_before()?;
        maps.configure(&config(options)?, &node::inside(&options.inside))?;
        Ok((programs, before))
    };
    let (programs, before) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            exchange.undo();
            return Err(error);
        }
    };
    attach(options, &programs)?;
    let after = exchange.bring_after()?;
    tracing::info!(before, after, "entries were brought to the new maps");
    Ok(Some(exchange))
}

/// How many entries maps are to have, where that can be chosen.
fn sizes(limits: &Limits) -> [(&'static str, u32); 11] {
    [
        (map::VIPS, limits.vips_max),
        (map::SOURCE_RANGES, limits.source_ranges_max),
        (map::SETS, limits.services_max.saturating_mul(SETS_PER_SERVICE)),
        (map::NAMES, limits.services_max),
        (map::SERVICE_COUNTS, counts::pages_for(limits.services_max)),
        (map::FLOWS, table::buckets_for(limits.flows_max)),
        (map::SOCKET_FLOWS, limits.socket_flows_max),
        (map::PEERS, table::buckets_for(limits.peers_max)),
        (map::AFFINITY, limits.affinity_max),
        (map::POLICY_PEERS, limits.policy_peers_max),
        (map::POLICY_FLOWS, limits.policy_flows_max),
    ]
}

fn ensure_directories(directory: &Path) -> Result<(), DataplaneError> {
    let on = |doing| move |source| DataplaneError::Path { doing, path: directory.to_owned(), source };
    let parent = directory.parent().unwrap_or(directory);
    if !sys::is_bpffs(parent).map_err(on("looking at the parent of"))? {
        return Err(DataplaneError::NotBpffs { path: parent.to_owned() });
    }
    for folder in ["maps", "former", "links"] {
        std::fs::create_dir_all(directory.join(folder)).map_err(on("making folders in"))?;
    }
    Ok(())
}

/// Loads the programs; with an exchange those that know the former maps too.
fn load_object(options: &LoadOptions, exchange: Option<&Exchange>) -> Result<Ebpf, DataplaneError> {
    let object = &options.object;
    let bytes = match std::fs::read(object) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataplaneError::NoObject { path: object.clone() });
        }
        Err(source) => {
            return Err(DataplaneError::Path { doing: "reading", path: object.clone(), source });
        }
    };
    let refused =
        |error: &dyn std::error::Error| DataplaneError::Object { path: object.clone(), reason: chain(error) };
    let mut loader = EbpfLoader::new();
    for name in map::ALL {
        loader.map_pin_path(name, kernel::pin(&options.bpffs, name));
    }
    for (name, entries_max) in sizes(&options.limits) {
        let before = exchange.and_then(|it| it.entries_max(name)).unwrap_or_default();
        loader.map_max_entries(name, entries_max.max(before));
    }
    let carry = u32::from(exchange.is_some());
    loader.override_global("CARRY", &carry, true);
    let flows = masks(map::FLOWS, options.limits.flows_max, options, exchange)?;
    loader.override_global("FLOWS_MASK", &flows.0, true);
    loader.override_global("FORMER_FLOWS_MASK", &flows.1, true);
    let peers = masks(map::PEERS, options.limits.peers_max, options, exchange)?;
    loader.override_global("PEERS_MASK", &peers.0, true);
    loader.override_global("FORMER_PEERS_MASK", &peers.1, true);
    for (name, pin) in exchange.map(Exchange::known).unwrap_or_default() {
        loader.map_pin_path(name, pin);
    }
    let mac = options.uplink_ifindex.map(describe).transpose()?.map_or([0; 6], |uplink| uplink.mac);
    let mac = u64::from_ne_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]);
    loader.override_global("PENSTOCK_UPLINK_MAC", &mac, true);
    let uplink = options.uplink_ifindex.unwrap_or_default();
    loader.override_global("PENSTOCK_UPLINK", &uplink, true);
    let mut programs = loader.load(&bytes).map_err(|error| refused(&error))?;
    for (_, program) in programs.programs_mut() {
        load_program(program).map_err(|error| refused(&error))?;
    }
    if let Err(error) = load_picks(&mut programs) {
        tracing::info!(
            error = chain(&error),
            "the kernel takes no programs that pick entries of maps: whole maps are read, and sockets listed"
        );
    }
    Ok(programs)
}

/// How many buckets tables of a kind have less one: the one that programs are to use, and the one they know besides.
fn masks(
    name: &str,
    entries_max: u32,
    options: &LoadOptions,
    exchange: Option<&Exchange>,
) -> Result<(u32, u32), DataplaneError> {
    let wanted = table::buckets_for(entries_max);
    let before = exchange.and_then(|it| it.entries_max(name));
    let pinned = kernel::pin(&options.bpffs, name);
    let present = if pinned.exists() {
        let info = sys::get(&pinned).and_then(|map| sys::map_info(map.as_fd()));
        let wrap =
            |source| DataplaneError::Kernel { doing: "asking for a map", subject: name.to_owned(), source };
        info.map_err(wrap)?.entries_max
    } else {
        wanted.max(before.unwrap_or_default())
    };
    Ok((present.saturating_sub(1), before.unwrap_or(1).saturating_sub(1)))
}

/// Loads those that are attached to something.
fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    until_verified(|| match &mut *program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        // Below.
        Program::Iter(_) => Ok(()),
        _ => Err(ProgramError::UnexpectedProgramType),
    })
}

/// Loads those that pick entries of maps. The kernel must describe its own types for it, and let its memory be read.
fn load_picks(programs: &mut Ebpf) -> Result<(), ProgramError> {
    let btf = Btf::from_sys_fs()?;
    for (_, program) in programs.programs_mut() {
        if let Program::Iter(program) = program {
            until_verified(|| program.load(picks::ITERATOR, &btf))?;
        }
    }
    Ok(())
}

/// The verifier gives up when a signal is pending, and says so: it is asked again, as libbpf does, more often than that: a
/// busy process gets many.
fn until_verified(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const ATTEMPTS_MAX: usize = 20;
    let mut attempt = 1;
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == std::io::ErrorKind::WouldBlock && attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            done => return done,
        }
    }
}

fn describe(ifindex: u32) -> Result<Uplink, DataplaneError> {
    uplink::observe_uplink(ifindex).map_err(|source| DataplaneError::Kernel {
        doing: "asking for the uplink",
        subject: format!("interface {ifindex}"),
        source,
    })
}

/// Attaches the XDP program by the first kind that the kernel takes. Without it tc has all the traffic, so that failing is
/// an error only for who asked for it. Returns the kind.
fn meet_early(
    links: &Links,
    programs: &Ebpf,
    options: &LoadOptions,
) -> Result<Option<XdpKind>, DataplaneError> {
    let Some(ifindex) = options.uplink_ifindex else {
        return links.remove_xdp().map(|()| None);
    };
    let uplink = describe(ifindex)?;
    // Nothing is sent on from there without Services.
    let wanted = if options.services { options.xdp } else { Xdp::Off };
    let plan = uplink::plan_xdp(wanted, &uplink);
    let mut why = plan.why.to_owned();
    for kind in plan.kinds {
        match links.ensure_xdp(ifindex, loaded(programs, XDP_PROGRAM)?, *kind) {
            Ok(()) => {
                tracing::info!(
                    uplink = uplink.name,
                    driver = uplink.driver,
                    xdp = kind.name(),
                    why,
                    "XDP attached"
                );
                return Ok(Some(*kind));
            }
            Err(error) if wanted != Xdp::Auto => return Err(error),
            Err(error) => why = chain(&error),
        }
    }
    links.remove_xdp()?;
    tracing::info!(uplink = uplink.name, driver = uplink.driver, why, "no XDP: tc meets what arrives");
    Ok(None)
}

/// An error and all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn config(options: &LoadOptions) -> Result<Config, DataplaneError> {
    let ports = node::snat_ports(node::observe_ephemeral_ports());
    let netns_cookie = sys::netns_cookie().map_err(|source| DataplaneError::Kernel {
        doing: "reading SO_NETNS_COOKIE",
        subject: "the node's network namespace".to_owned(),
        source,
    })?;
    Ok(Config {
        node_address: node::address_of(&options.node_ips, IpAddr::is_ipv4),
        node_address_v6: node::address_of(&options.node_ips, IpAddr::is_ipv6),
        netns_cookie,
        snat_port_min: *ports.start(),
        snat_port_max: *ports.end(),
        flags: if options.masquerade { CONFIG_MASQUERADE } else { 0 },
        tunnel: 0,
        zero: 0,
    })
}

pub(crate) fn loaded<'a>(programs: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>, DataplaneError> {
    let program = programs.program(name).and_then(|program| program.fd().ok());
    program
        .map(AsFd::as_fd)
        .ok_or_else(|| DataplaneError::Mismatch { what: "program", name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &Path) -> LoadOptions {
        LoadOptions {
            object: folder.join("penstock.bpf.o"),
            bpffs: folder.join("penstock"),
            cgroup_v2: folder.to_owned(),
            uplink_ifindex: None,
            services: true,
            xdp: Xdp::Auto,
            tc: Tc::Auto,
            node_ips: vec![IpAddr::from([10, 240, 0, 11])],
            inside: Vec::new(),
            masquerade: true,
            limits: Limits::default(),
            conversions: &[],
        }
    }

    #[test]
    fn a_folder_for_pins_that_is_no_bpf_file_system_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Dataplane::load(options(folder.path())).expect_err("refused").to_string();
        assert!(
            error.contains(&folder.path().display().to_string()) && error.contains("mount -t bpf"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_or_broken_object_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = options(folder.path());
        let error = load_object(&options, None).expect_err("refused").to_string();
        assert!(error.contains("penstock.bpf.o") && error.contains("cargo xtask ebpf"), "{error}");

        std::fs::write(&options.object, "not an object").expect("a file");
        let error = load_object(&options, None).expect_err("refused");
        assert!(matches!(error, DataplaneError::Object { .. }), "{error}");
    }
}
