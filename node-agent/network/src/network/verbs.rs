//! What each request of the plugin does.
//!
//! The order in ADD is file, link, programs; in DEL programs, link, file. Whatever step a crash hits, the file
//! names what must be undone. It must not know the socket.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::Ordering;

use ipnetwork::IpNetwork;
use penstock_cni::protocol::{
    AddRequest, Address, Attached, AttachmentId, CheckRequest, Link, Refusal, Response, Route, Why,
};

use super::{Network, NetworkError, cause};
use crate::attachment::{Attachment, host_link};
use crate::hooks::PodLink;
use crate::links::{
    GATEWAY, GATEWAY_V6, LinkError, apply_host_side, apply_pair, apply_pod_side, await_carrier, delete_link,
    link_mtu, observe_link_difference,
};
use crate::netns;

impl Network {
    pub(super) async fn add(&self, request: AddRequest) -> Result<Attached, NetworkError> {
        let lock = self.lock_of(&request.id);
        let guard = lock.lock().await;
        let added = self.add_locked(&request).await;
        drop(guard);
        self.forget_lock(&request.id, lock);
        self.publish();
        added
    }

    async fn add_locked(&self, request: &AddRequest) -> Result<Attached, NetworkError> {
        let attachment = match self.with_ledger(|ledger| ledger.ensure(request))? {
            // Addresses of sandboxes that went without a DEL are found before anyone is turned away.
            Err(crate::IpamError::Exhausted { .. }) => {
                self.sweep().await;
                self.with_ledger(|ledger| ledger.ensure(request))??
            }
            ensured => ensured?,
        };
        match self.attach(&attachment).await {
            Ok(mtu) => Ok(describe(&attachment, mtu)),
            Err(error) => {
                if let Err(undo) = self.detach(&attachment.id).await {
                    tracing::warn!(error = %cause(&undo), "an ADD that failed could not be undone");
                }
                Err(error)
            }
        }
    }

    /// Makes the link, or completes the one there is. Returns its MTU.
    async fn attach(&self, attachment: &Attachment) -> Result<u32, NetworkError> {
        let name = attachment.host_link();
        let mtu = match self.kernel.observe_link(&name).await? {
            Some(link) => link_mtu(&link),
            None => {
                let mtu = self.pod_mtu.load(Ordering::Relaxed);
                let netns = netns::open(Path::new(&attachment.netns))?;
                apply_pair(&self.kernel, attachment, &netns, mtu).await?;
                mtu
            }
        };
        apply_pod_side(attachment).await?;
        let ifindex = apply_host_side(&self.kernel, attachment, self.config.node_ips).await?;
        let link = PodLink { begins: true, ..pod_link(attachment, ifindex) };
        self.hook(link, |hooks, link| hooks.attach(link))
            .await
            .map_err(|source| NetworkError::Hook { container: attachment.id.container.clone(), source })?;
        await_carrier(&self.kernel, attachment).await?;
        Ok(mtu)
    }

    pub(super) async fn del(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let lock = self.lock_of(id);
        let guard = lock.lock().await;
        let deleted = self.detach(id).await;
        drop(guard);
        self.forget_lock(id, lock);
        self.publish();
        deleted
    }

    /// Programs, link, file. Works without a file too, and before the node's range is known: the link's name
    /// follows from the id.
    pub(super) async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let name = host_link(id);
        let held = self.with_ledger(|ledger| ledger.get(id).cloned()).ok().flatten();
        if let Some(attachment) = &held
            && let Some(link) = self.kernel.observe_link(&name).await?
        {
            let link = pod_link(attachment, link.header.index);
            if let Err(error) = self.hook(link, |hooks, link| hooks.detach(link)).await {
                tracing::warn!(%error, link = name, "the data plane did not let go of a link");
            }
        }
        delete_link(&self.kernel.netlink, &name).await?;
        match self.with_ledger(|ledger| ledger.release(id)) {
            // Before the range is known the ledger is not open. The link is gone, so opening it drops the file.
            Err(NetworkError::NoRange) => Ok(()),
            released => Ok(released??),
        }
    }

    pub(super) async fn check(&self, request: &CheckRequest) -> Result<Response, NetworkError> {
        let refuse = |why, message| Ok(Response::Refused(Refusal { why, message }));
        let Some(attachment) = self.with_ledger(|ledger| ledger.get(&request.id).cloned())? else {
            return refuse(Why::Unknown, format!("container {} has no attachment", request.id.container));
        };
        let own: Vec<IpAddr> = attachment.addresses().collect();
        if let Some(other) = request.addresses.iter().find(|address| !own.contains(&address.ip())) {
            return refuse(Why::Differs, format!("the pod has {own:?}, not {other}"));
        }
        let here = Attachment { netns: request.netns.clone(), ..attachment };
        match observe_link_difference(&self.kernel, &here, request.mtu).await? {
            Some(difference) => refuse(Why::Differs, difference),
            None => Ok(Response::Done),
        }
    }

    /// Whether an ADD would succeed, and whether pods that are there reach other nodes.
    pub(super) async fn status(&self) -> Result<Response, NetworkError> {
        if self.pod_ranges.borrow().is_none() {
            return Err(NetworkError::NoRange);
        }
        let message = match self.observe_uplink().await {
            Ok(uplink) if uplink.is_running => return Ok(Response::Done),
            Ok(uplink) => {
                format!("the uplink {} is down or has no carrier: pods reach no other node", uplink.name)
            }
            Err(error @ LinkError::Missing { .. }) => format!("there is no uplink: {error}"),
            Err(error) => return Err(error.into()),
        };
        Ok(Response::Refused(Refusal { why: Why::Limited, message }))
    }

    pub(super) async fn gc(
        &self,
        network: &str,
        keep: &BTreeSet<AttachmentId>,
    ) -> Result<Response, NetworkError> {
        let gone: Vec<AttachmentId> = self.with_ledger(|ledger| {
            let of_network = ledger.all().filter(|attachment| attachment.network == network);
            of_network.map(|attachment| attachment.id.clone()).filter(|id| !keep.contains(id)).collect()
        })?;
        let mut first_error = None;
        for id in gone {
            if let Err(error) = self.del(&id).await {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(Response::Done), Err)
    }
}

pub(super) fn pod_link(attachment: &Attachment, ifindex: u32) -> PodLink {
    PodLink {
        ifindex,
        name: attachment.host_link(),
        addresses: attachment.addresses().collect(),
        is_shaped: attachment.bandwidth.ingress_rate > 0,
        pod_mac: attachment.pod_mac().0,
        namespace: attachment.pod.namespace.clone(),
        pod: attachment.pod.name.clone(),
        begins: false,
    }
}

fn describe(attachment: &Attachment, mtu: u32) -> Attached {
    let mut addresses = Vec::new();
    let mut routes = Vec::new();
    for address in attachment.addresses() {
        let (gateway, everywhere) = match address {
            IpAddr::V4(_) => (IpAddr::V4(GATEWAY), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (IpAddr::V6(GATEWAY_V6), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        addresses.push(Address { address: IpNetwork::from(address), gateway });
        routes.push(Route { destination: IpNetwork::from(gateway), gateway: None });
        // A prefix of 0 is one of every family.
        let default = IpNetwork::new(everywhere, 0).unwrap_or(IpNetwork::from(everywhere));
        routes.push(Route { destination: default, gateway: Some(gateway) });
    }
    Attached {
        host: Link { name: attachment.host_link(), mac: attachment.host_mac().to_string(), mtu },
        pod: Link { name: attachment.id.interface.clone(), mac: attachment.pod_mac().to_string(), mtu },
        addresses,
        routes,
    }
}
