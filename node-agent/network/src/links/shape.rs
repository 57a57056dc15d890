//! How fast a pod may be: a token bucket at the end of its link where the packets leave.
//!
//! What goes to the pod leaves by the node's end, what comes from it by its own: a pod cannot change its own queue
//! without CAP_NET_ADMIN, and what may have that is not limited anyway. It must not know who asked for a limit.

use std::time::Duration;

use futures::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};

use super::{LinkError, refused};

/// How long a packet may wait for its turn; what would wait longer is dropped, and TCP takes the hint.
const LATENCY: Duration = Duration::from_millis(25);
/// What may pass at once: so much time at the rate, whatever the runtime asks. containerd asks for half a gigabyte
/// (`toCNIBandWidth` in its CRI plugin), which would be no limit for the first minutes.
const BURST_TIME: Duration = Duration::from_millis(50);
/// At least one packet as TCP segmentation offload makes them.
const BURST_BYTES_MIN: u64 = 64 << 10;

/// `TCA_TBF_*` of include/uapi/linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the kernel then needs no rate table.
const LINKLAYER_ETHERNET: u8 = 1;

/// A token bucket, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    rate: u64,
    burst: u32,
    limit: u32,
}

/// Limits what leaves by a device to `rate_bits` a second. Idempotent.
pub(crate) async fn ensure_shape(
    netlink: &Handle,
    index: u32,
    rate_bits: u64,
    burst_bits: u64,
) -> Result<(), LinkError> {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![
        TcAttribute::Kind("tbf".to_owned()),
        TcAttribute::Options(options(plan_bucket(rate_bits, burst_bits))),
    ];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    // The library builds no token buckets, so the request is sent, and its answer read, by hand.
    let doing = || refused("limit bandwidth");
    let mut answers = netlink.clone().request(request).map_err(doing())?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(doing()(rtnetlink::Error::NetlinkError(error)));
        }
    }
    Ok(())
}

fn plan_bucket(rate_bits: u64, burst_bits: u64) -> Bucket {
    let rate = (rate_bits / 8).max(1);
    let during = |time: Duration| {
        u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
    };
    let most = during(BURST_TIME).max(BURST_BYTES_MIN);
    let burst = if burst_bits == 0 { most } else { (burst_bits / 8).clamp(BURST_BYTES_MIN, most) };
    let limit = burst.saturating_add(during(LATENCY));
    let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    Bucket { rate, burst: narrow(burst), limit: narrow(limit) }
}

/// `struct tc_tbf_qopt` and what came after it.
fn options(bucket: Bucket) -> Vec<TcOption> {
    let mut parameters = Vec::with_capacity(36);
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    // struct tc_ratespec, twice: the rate and no peak rate.
    parameters.extend([0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0]);
    parameters.extend(rate.to_ne_bytes());
    parameters.extend([0; 12]);
    parameters.extend(bucket.limit.to_ne_bytes());
    // The bucket in ticks and the peak's packet size: TCA_TBF_BURST says the first in bytes.
    parameters.extend([0; 8]);
    vec![
        TcOption::Other(DefaultNla::new(TCA_TBF_PARMS, parameters)),
        TcOption::Other(DefaultNla::new(TCA_TBF_BURST, bucket.burst.to_ne_bytes().to_vec())),
        TcOption::Other(DefaultNla::new(TCA_TBF_RATE64, bucket.rate.to_ne_bytes().to_vec())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_bounded_in_time_whatever_burst_is_asked_for() {
        let slow = plan_bucket(8_000_000, u64::from(u32::MAX));
        assert_eq!((slow.rate, slow.burst, slow.limit), (1_000_000, 65_536, 90_536));
        let fast = plan_bucket(8_000_000_000, u64::from(u32::MAX));
        assert_eq!((fast.rate, fast.burst), (1_000_000_000, 50_000_000));
        assert_eq!(plan_bucket(8_000_000_000, 8 << 20).burst, 1 << 20);
        assert_eq!(plan_bucket(u64::MAX, 0).burst, u32::MAX);
        assert_eq!(plan_bucket(1, 1).rate, 1);
    }

    #[test]
    fn the_kernel_s_structure_is_filled_to_its_size() {
        let options = options(plan_bucket(8_000_000, 0));
        let TcOption::Other(parameters) = &options[0] else { panic!() };
        assert_eq!(rtnetlink::packet_core::Nla::value_len(parameters), 36);
    }
}
