//! Routes that make addresses the node's own: `local ADDRESS dev lo`, one an address.
//!
//! They are told from everybody else's by their protocol number, so that what an agent that was killed left behind is
//! found and removed, by the next proxy or by the programs that take its place. Must not know what an address is for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

/// Routing protocol number of these routes. Unassigned in iproute2's rt_protos.
pub const LOCAL_ROUTE_PROTOCOL: u8 = 81;

/// RT_TABLE_LOCAL: looked at before every other, so that these routes win over those of the pod network.
const TABLE_LOCAL: u32 = 255;

/// Why a route is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No netlink socket.
    #[error("no netlink socket for routes")]
    Socket(#[source] std::io::Error),
    /// There is no `lo`.
    #[error("the node has no loopback device")]
    NoLoopback(#[source] nix::Error),
    /// A request failed.
    #[error("the kernel refused to {doing}")]
    Refused {
        /// What was asked.
        doing: String,
        /// The answer.
        #[source]
        source: rtnetlink::Error,
    },
}

/// The routes of this network namespace.
#[derive(Debug, Clone)]
pub struct Routes {
    netlink: Handle,
    loopback: u32,
}

/// Removes every route a userspace proxy left. To be called in the node's network namespace, within a tokio runtime.
pub async fn remove_routes() -> Result<usize, RouteError> {
    let routes = Routes::open()?;
    let left = routes.observe().await?;
    for address in &left {
        routes.remove(*address).await?;
    }
    Ok(left.len())
}

impl Routes {
    /// Opens the calling thread's network namespace. Must be called within a tokio runtime.
    pub fn open() -> Result<Self, RouteError> {
        let loopback = nix::net::if_::if_nametoindex("lo").map_err(RouteError::NoLoopback)?;
        let (connection, netlink, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { netlink, loopback })
    }

    /// The addresses that have such a route.
    pub async fn observe(&self) -> Result<BTreeSet<IpAddr>, RouteError> {
        let mut found = BTreeSet::new();
        let families =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for family in families {
            let mut routes = self.netlink.route().get(family).execute();
            let refused = |source| RouteError::Refused { doing: "list the local routes".to_owned(), source };
            while let Some(route) = routes.try_next().await.map_err(refused)? {
                found.extend(address_of(&route));
            }
        }
        Ok(found)
    }

    /// Makes an address the node's own. One that it is already, by an interface, stays as it is.
    pub async fn ensure(&self, address: IpAddr) -> Result<(), RouteError> {
        match self.netlink.route().add(self.message(address)).execute().await {
            Err(error) if errno(&error) == libc::EEXIST => Ok(()),
            outcome => outcome.map_err(|source| RouteError::Refused {
                doing: format!("make {address} an address of the node"),
                source,
            }),
        }
    }

    /// Makes an address the node's own no more.
    pub async fn remove(&self, address: IpAddr) -> Result<(), RouteError> {
        match self.netlink.route().del(self.message(address)).execute().await {
            Err(error) if errno(&error) == libc::ESRCH => Ok(()),
            outcome => outcome.map_err(|source| RouteError::Refused {
                doing: format!("remove the local route to {address}"),
                source,
            }),
        }
    }

    fn message(&self, address: IpAddr) -> RouteMessage {
        match address {
            IpAddr::V4(four) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(four, 32)
                .table_id(TABLE_LOCAL)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .protocol(RouteProtocol::Other(LOCAL_ROUTE_PROTOCOL))
                .output_interface(self.loopback)
                .build(),
            IpAddr::V6(six) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(six, 128)
                .table_id(TABLE_LOCAL)
                .kind(RouteType::Local)
                .scope(RouteScope::Universe)
                .protocol(RouteProtocol::Other(LOCAL_ROUTE_PROTOCOL))
                .output_interface(self.loopback)
                .build(),
        }
    }
}

/// The address of one of our routes.
fn address_of(route: &RouteMessage) -> Option<IpAddr> {
    if route.header.protocol != RouteProtocol::Other(LOCAL_ROUTE_PROTOCOL)
        || route.header.kind != RouteType::Local
    {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(four)) => Some(IpAddr::V4(*four)),
        RouteAttribute::Destination(RouteAddress::Inet6(six)) => Some(IpAddr::V6(*six)),
        _ => None,
    })
}

/// The error number in a netlink answer; zero for any other failure.
fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}
