//! The addresses on which NodePorts are served, as they come and go.
//!
//! It exists because a node's addresses change while the agent runs. It must not know what is served on them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use tokio::sync::watch;

use super::kernel_news::KernelNews;
use crate::desired::NodePortAddresses;

/// How often addresses are listed where the kernel does not tell of changes.
const LIST_EVERY: Duration = Duration::from_secs(10);

/// The addresses; always the newest.
pub type NodeAddresses = watch::Receiver<Arc<Vec<IpAddr>>>;

/// The addresses, and what keeps them so as a future.
pub fn follow(
    which: NodePortAddresses,
    primary: Vec<IpAddr>,
) -> (NodeAddresses, impl Future<Output = ()> + use<>) {
    let (to, addresses) = watch::channel(Arc::new(select(&which, &primary)));
    let following = async move {
        if which == NodePortAddresses::Primary {
            return std::future::pending().await;
        }
        let changes = KernelNews::of(libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR);
        if let Err(error) = &changes {
            tracing::warn!(%error, "the kernel does not tell of new addresses; they are listed now and then");
        }
        loop {
            // Also before the first wait: an address may have come before anybody listened.
            let now = select(&which, &primary);
            to.send_if_modified(|known| {
                let news = **known != now;
                if news {
                    tracing::info!(addresses = ?now, "NodePorts are served on other addresses now");
                    *known = Arc::new(now);
                }
                news
            });
            match &changes {
                Ok(changes) => changes.next().await,
                Err(_) => tokio::time::sleep(LIST_EVERY).await,
            }
        }
    };
    (addresses, following)
}

fn select(which: &NodePortAddresses, primary: &[IpAddr]) -> Vec<IpAddr> {
    match getifaddrs() {
        Ok(all) => which.select(primary, all.filter_map(|device| ip(&device.address?))),
        Err(error) => {
            tracing::warn!(%error, "the node's addresses cannot be listed; NodePorts are served on --node-ip");
            primary.to_vec()
        }
    }
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|it| it.ip().into());
    four.or_else(|| address.as_sockaddr_in6().map(|it| it.ip().into()))
}

#[cfg(test)]
mod tests {
    use penstock_tests::netns::{ip, isolated};

    use super::*;

    #[test]
    fn addresses_are_followed_as_they_come_and_go() {
        // Asks for root and says so when it is not there.
        if penstock_tests::dataplane::object().is_none() {
            return;
        }
        isolated(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let primary = vec![IpAddr::from([10, 240, 0, 11])];
                let ranges = "192.0.2.0/24,2001:db8::/32".parse().unwrap();
                let (mut addresses, following) = follow(ranges, primary.clone());
                assert!(addresses.borrow_and_update().is_empty());
                let changes = async {
                    let mut next = async || {
                        addresses.changed().await.unwrap();
                        addresses.borrow_and_update().to_vec()
                    };
                    ip("address add 192.0.2.7/32 dev lo").unwrap();
                    assert_eq!(next().await, [IpAddr::from([192, 0, 2, 7])]);
                    ip("address add 2001:db8::7/128 dev lo nodad").unwrap();
                    assert_eq!(next().await.len(), 2);
                    ip("address del 192.0.2.7/32 dev lo").unwrap();
                    assert_eq!(next().await, ["2001:db8::7".parse::<IpAddr>().unwrap()]);
                };
                let patience = Duration::from_secs(60);
                tokio::select! {
                    () = following => {}
                    done = tokio::time::timeout(patience, changes) => done.expect("the kernel tells of addresses"),
                }
                let (addresses, _) = follow(NodePortAddresses::Primary, primary.clone());
                assert_eq!(**addresses.borrow(), primary);
            });
        });
    }
}
