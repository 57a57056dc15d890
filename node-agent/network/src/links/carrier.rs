//! Waiting until a new link carries packets.
//!
//! It exists because the kernel brings a link up in two steps: the request that sets a device up returns at once, and a
//! worker gives it its queue a little later, on a busy machine much later (net/core/link_watch.c). What is sent
//! between the two is dropped: a pod's first question to DNS, which it repeats after five seconds. It must not know
//! what the link is for.

use std::path::PathBuf;
use std::time::Duration;

use netlink_packet_route::link::{LinkAttribute, LinkMessage, State};
use rtnetlink::Handle;
use tokio::time::{Instant, sleep};

use super::kernel::observe_link;
use super::{Kernel, LinkError};
use crate::attachment::Attachment;
use crate::netns::Netns;

const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// A link that takes longer will carry when it does; the pod is not kept from starting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns when both ends of a pod's link carry packets, or patience ends.
pub(crate) async fn await_carrier(kernel: &Kernel, attachment: &Attachment) -> Result<(), LinkError> {
    let deadline = Instant::now() + PATIENCE;
    let pod = Netns::At(PathBuf::from(&attachment.netns)).netlink()?;
    let host_link = attachment.host_link();
    for (netlink, name) in [(&pod, &attachment.id.interface), (&kernel.netlink, &host_link)] {
        if !carries_by(deadline, netlink, name).await? {
            tracing::warn!(link = name, "a new link does not carry packets yet");
        }
    }
    Ok(())
}

async fn carries_by(deadline: Instant, netlink: &Handle, name: &str) -> Result<bool, LinkError> {
    loop {
        let link = observe_link(netlink, name).await?;
        let link = link.ok_or_else(|| LinkError::Missing { name: name.to_owned() })?;
        if is_operational(&link) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn is_operational(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::OperState(State::Up)))
}
