//! How fast a pod may be: a token bucket at the end of its link where the packets leave.
//!
//! What goes to the pod leaves by the node's end, what comes from it by its own: a pod cannot change its own queue
//! without CAP_NET_ADMIN, and what may have that is not limited anyway. It must not know who asked for a limit.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla,
    NlasIterator,
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

/// What differs from what [`ensure_shape`] makes of this rate and burst, in words; `None` when nothing does.
pub(crate) async fn observe_difference(
    netlink: &Handle,
    index: u32,
    rate_bits: u64,
    burst_bits: u64,
) -> Result<Option<String>, LinkError> {
    let meant = plan_bucket(rate_bits, burst_bits);
    let mut queues = netlink.qdisc().get().index(index.cast_signed()).execute();
    let mut found = None;
    while let Some(queue) = queues.try_next().await.map_err(refused("list queues"))? {
        if queue.header.index == index.cast_signed() && queue.header.parent == TcHandle::ROOT {
            found = read_bucket(&queue);
        }
    }
    Ok(match found {
        Some((rate, limit)) if (rate, limit) == (meant.rate, meant.limit) => None,
        Some((rate, _)) => {
            Some(format!("is limited to {} bit/s, not to {rate_bits}", rate.saturating_mul(8)))
        }
        None => Some(format!("is not limited to {rate_bits} bit/s")),
    })
}

/// Rate and limit of a token bucket as the kernel shows it.
fn read_bucket(queue: &TcMessage) -> Option<(u64, u32)> {
    let is_bucket = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "tbf");
    if !queue.attributes.iter().any(is_bucket) {
        return None;
    }
    let options = queue.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    });
    // The library knows no token buckets and leaves their options in one piece.
    let TcOption::Other(options) = options? else { return None };
    let mut bytes = vec![0; options.value_len()];
    options.emit_value(&mut bytes);
    let (mut rate, mut limit) = (None, None);
    for option in NlasIterator::new(&bytes).filter_map(Result::ok) {
        let number = |at: usize| option.value().get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        match option.kind() {
            // The rate is behind eight bytes of struct tc_ratespec, the limit behind two of these.
            TCA_TBF_PARMS => (rate, limit) = (rate.or(number(8).map(u64::from)), number(24)),
            TCA_TBF_RATE64 => rate = option.value().try_into().ok().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    Some((rate?, limit?))
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
    use rtnetlink::packet_core::Emitable;

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
        assert_eq!(parameters.value_len(), 36);
    }

    #[test]
    fn a_bucket_is_read_as_it_was_written() {
        for rate_bits in [8_000_000, 80_000_000_000] {
            let bucket = plan_bucket(rate_bits, 0);
            let written = options(bucket);
            let mut bytes = vec![0; written.as_slice().buffer_len()];
            written.as_slice().emit(&mut bytes);
            let whole = TcOption::Other(DefaultNla::new(0, bytes));
            let mut queue = TcMessage::default();
            queue.attributes = vec![TcAttribute::Kind("tbf".into()), TcAttribute::Options(vec![whole])];
            assert_eq!(read_bucket(&queue), Some((bucket.rate, bucket.limit)));
            queue.attributes[0] = TcAttribute::Kind("fq".into());
            assert_eq!(read_bucket(&queue), None);
        }
    }
}
