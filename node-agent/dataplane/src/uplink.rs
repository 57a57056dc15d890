//! The interface to the outside as the kernel describes it, and by which kind of XDP its packets are to be met.
//!
//! Native XDP runs in the driver, before anything is allocated for a packet. Generic XDP runs in every kernel, on a
//! socket buffer that is there already. Which of both is decided here (pure); what the kernel refuses is told with why.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use serde::Serialize;

/// How packets from outside are to be met before the kernel makes socket buffers of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Xdp {
    /// Natively where the driver can, else generically, but not at all on a veth.
    #[default]
    Auto,
    /// Natively or not at all.
    Native,
    /// Generically.
    Generic,
    /// Not at all: the programs at tc do all of it.
    Off,
}

/// A kind of XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpKind {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// The name of its driver; empty when it does not say.
    pub driver: String,
    /// Its link address; zeros when it has none of six bytes.
    pub mac: [u8; 6],
}

/// Which kinds to try, in order, and why none other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpPlan {
    /// In order.
    pub kinds: &'static [XdpKind],
    /// Why a kind that could be meant is not among them; empty when nothing is to be said.
    pub why: &'static str,
}

/// Which kinds of XDP to try.
pub fn plan_xdp(wanted: Xdp, uplink: &Uplink) -> XdpPlan {
    // What a veth sends natively is lost unless its other end polls, which is not to be seen from here: `veth_xdp_xmit`
    // answers ENXIO and counts it where nobody looks (drivers/net/veth.c). Generically sent packets arrive, but those that a
    // veth receives are shared with their sender, and each is copied for the program: it costs more than tc does in all.
    let (kinds, why): (&'static [XdpKind], _) = match wanted {
        Xdp::Off => (&[], "it is switched off"),
        Xdp::Native => (&[XdpKind::Native], ""),
        Xdp::Generic => (&[XdpKind::Generic], ""),
        Xdp::Auto if uplink.driver == "veth" => (
            &[],
            "the other end of a veth receives natively sent packets only while it polls, and generically met ones are \
             copied first, which takes longer than tc",
        ),
        Xdp::Auto => (&[XdpKind::Native, XdpKind::Generic], ""),
    };
    XdpPlan { kinds, why }
}

/// Asks the kernel for an interface of this thread's network namespace.
pub fn observe_uplink(ifindex: u32) -> io::Result<Uplink> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function wants.
    if unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the function has ended the name with a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_owned();
    let socket = datagram_socket()?;
    Ok(Uplink {
        driver: driver(&socket, &name).unwrap_or_default(),
        mac: mac(&socket, &name)?,
        name: name.to_string_lossy().into_owned(),
    })
}

/// Whether there is an interface of this number in this thread's network namespace.
pub fn exists(ifindex: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function wants.
    !unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null()
}

fn datagram_socket() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn request(name: &CString) -> libc::ifreq {
    // SAFETY: plain bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name that the kernel gave fits.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    request
}

fn mac(socket: &OwnedFd, name: &CString) -> io::Result<[u8; 6]> {
    let mut request = request(name);
    // SAFETY: the request lives through the call, which writes within it.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this is the field that the call has filled.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Ok([0; 6]);
    }
    Ok(std::array::from_fn(|at| address.sa_data[at] as u8))
}

/// `struct ethtool_drvinfo` of include/uapi/linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

fn driver(socket: &OwnedFd, name: &CString) -> Option<String> {
    const SIOCETHTOOL: u64 = 0x8946;
    const ETHTOOL_GDRVINFO: u32 = 3;
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the request and the structure it points to live through the call, and have the kernel's layout.
    if unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCETHTOOL as _, &mut request) } < 0 {
        return None;
    }
    // SAFETY: plain bytes that the kernel wrote through the address above.
    let driver = unsafe { (&raw const info.driver).read_volatile() };
    Some(CStr::from_bytes_until_nul(&driver).ok()?.to_string_lossy().into_owned())
}

// === impl XdpKind ===

impl XdpKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Native, Self::Generic];

    /// How it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(driver: &str) -> Uplink {
        Uplink { name: "eth0".into(), driver: driver.into(), mac: [2, 0, 0, 0, 0, 1] }
    }

    #[test]
    fn a_driver_is_asked_first_and_the_stack_second() {
        let plan = plan_xdp(Xdp::Auto, &uplink("mlx5_core"));
        assert_eq!((plan.kinds, plan.why), (&[XdpKind::Native, XdpKind::Generic][..], ""));
    }

    #[test]
    fn a_veth_is_met_early_only_when_that_is_asked_for() {
        let plan = plan_xdp(Xdp::Auto, &uplink("veth"));
        assert!(plan.kinds.is_empty() && plan.why.contains("veth"));
        assert_eq!(plan_xdp(Xdp::Native, &uplink("veth")).kinds, [XdpKind::Native]);
        assert_eq!(plan_xdp(Xdp::Generic, &uplink("veth")).kinds, [XdpKind::Generic]);
    }

    #[test]
    fn switched_off_nothing_is_tried_and_it_is_said() {
        let plan = plan_xdp(Xdp::Off, &uplink("mlx5_core"));
        assert!(plan.kinds.is_empty() && !plan.why.is_empty());
    }

    #[test]
    fn the_loopback_is_there_and_has_no_link_address() {
        let lo = observe_uplink(1).expect("a loopback");
        assert_eq!((lo.name.as_str(), lo.mac), ("lo", [0; 6]));
        assert!(exists(1) && !exists(u32::MAX >> 1));
    }
}
