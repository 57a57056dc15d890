//! Brings files and links together: after a crash, and for sandboxes that went without a DEL.
//!
//! The rule is one: an attachment lives while the node's end of its link does, because the kernel removes that with
//! the sandbox's namespace. It must not ask the runtime, which may be down.

use std::collections::BTreeMap;

use super::verbs::pod_link;
use super::{Network, NetworkError, cause};
use crate::attachment::Attachment;
use crate::links::{HOST_LINK_PREFIX, apply_host_side, delete_link};

impl Network {
    /// At start, before anything is served: both ways, and every living link to the hooks again.
    pub(super) async fn reconcile(&self) -> Result<(), NetworkError> {
        let mut links = self.kernel.observe_links(HOST_LINK_PREFIX).await?;
        let held: BTreeMap<String, Attachment> =
            self.with_ledger(|ledger| ledger.all().map(|held| (held.host_link(), held.clone())).collect())?;
        for (name, attachment) in &held {
            let Some(ifindex) = links.remove(name) else {
                tracing::info!(address = %attachment.address, pod = attachment.pod.name, "address of a pod that is gone");
                self.with_ledger(|ledger| ledger.release(&attachment.id))??;
                continue;
            };
            // A broken pod must not keep the agent from serving the others.
            if let Err(error) = apply_host_side(&self.kernel, attachment, self.config.node_ips).await {
                tracing::warn!(error = %cause(&error), link = name, "a pod's link could not be repaired");
            }
            if let Err(error) =
                self.hook(pod_link(attachment, ifindex), |hooks, link| hooks.attach(link)).await
            {
                tracing::warn!(%error, link = name, "the data plane refused a pod's link");
            }
        }
        for name in links.keys() {
            tracing::info!(link = name, "removing the link of no pod");
            delete_link(&self.kernel.netlink, name).await?;
        }
        self.publish();
        Ok(())
    }

    /// Hands every living link to the hooks again, for a data plane that came later than the network.
    pub async fn attach_all(&self) {
        let Ok(held) = self.with_ledger(|ledger| ledger.all().cloned().collect::<Vec<_>>()) else { return };
        for attachment in held {
            let name = attachment.host_link();
            let Ok(Some(link)) = self.kernel.observe_link(&name).await else { continue };
            let link = pod_link(&attachment, link.header.index);
            if let Err(error) = self.hook(link, |hooks, link| hooks.attach(link)).await {
                tracing::warn!(%error, link = name, "the data plane refused a pod's link");
            }
        }
    }

    /// While serving: addresses whose link is gone come back.
    pub(super) async fn sweep(&self) {
        let Ok(held) = self.with_ledger(|ledger| ledger.all().cloned().collect::<Vec<_>>()) else { return };
        let links = match self.kernel.observe_links(HOST_LINK_PREFIX).await {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(error = %cause(&error), "links could not be listed");
                return;
            }
        };
        let mut freed = 0;
        for attachment in held.iter().filter(|held| !links.contains_key(&held.host_link())) {
            // One that is being added or deleted right now is its verb's business.
            let lock = self.lock_of(&attachment.id);
            if let Ok(guard) = lock.try_lock() {
                let still_gone =
                    self.kernel.observe_link(&attachment.host_link()).await.is_ok_and(|l| l.is_none());
                if still_gone
                    && matches!(self.with_ledger(|ledger| ledger.release(&attachment.id)), Ok(Ok(())))
                {
                    freed += 1;
                }
                drop(guard);
            }
            self.forget_lock(&attachment.id, lock);
        }
        if freed > 0 {
            tracing::info!(freed, "addresses of sandboxes that went without a DEL");
            self.publish();
        }
    }
}
