//! From the bytes of a query to the bytes of a response.
//!
//! It exists to keep every rule about packets (headers, EDNS, truncation) in one place for UDP and TCP. It must not
//! know sockets.

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::DNSClass;

use crate::answer::{Answer, Question, answer, authority};
use crate::forward::Forwarder;
use crate::zone::Zone;

/// Smallest UDP answer every asker takes (RFC 1035).
const UDP_BYTES_MIN: u16 = 512;
/// Largest UDP answer given, whatever the asker says it takes.
const UDP_BYTES_MAX: u16 = 4096;

/// What a query needs before it can be answered.
pub(crate) enum Step {
    /// Nothing; here is the response.
    Done(Message),
    /// Somebody else's answer. `response` holds what is known already.
    Ask {
        /// The response so far.
        response: Box<Message>,
        /// The question for upstream.
        query: Query,
    },
    /// Nothing should be said: the packet is no query.
    Ignore,
}

/// Answers what can be answered without waiting.
pub(crate) fn respond(zone: &ArcSwap<Zone>, packet: &[u8], rotation: usize) -> Step {
    let Ok(request) = Message::from_vec(packet) else {
        // An id is all that can be relied on, and only in a query: answering a response could loop.
        return match packet {
            [a, b, flags, ..] if packet.len() >= 12 && flags & 0x80 == 0 => Step::Done(Message::error_msg(
                u16::from_be_bytes([*a, *b]),
                OpCode::Query,
                ResponseCode::FormErr,
            )),
            _ => Step::Ignore,
        };
    };
    if request.metadata.message_type != MessageType::Query {
        return Step::Ignore;
    }
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        response.set_edns(edns);
    }
    let fail = |mut response: Message, code| {
        response.metadata.response_code = code;
        Step::Done(response)
    };
    if request.version() > 0 {
        return fail(response, ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return fail(response, ResponseCode::NotImp);
    }
    let [query] = &request.queries[..] else { return fail(response, ResponseCode::FormErr) };
    response.add_query(query.clone());
    if query.query_class() != DNSClass::IN {
        return fail(response, ResponseCode::Refused);
    }

    let zone = zone.load();
    let question = Question { name: query.name().clone(), kind: query.query_type(), rotation, aliases: 0 };
    response.metadata.authoritative = true;
    match answer(&zone, &question) {
        Answer::Found { answers, additionals } => {
            response.answers = answers;
            response.additionals = additionals;
        }
        Answer::NoData => response.authorities.extend(authority(&zone)),
        Answer::NameError => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.authorities.extend(authority(&zone));
        }
        Answer::Chase { answers, target } => {
            response.answers = answers;
            let query = Query::query(target, question.kind);
            return Step::Ask { response: Box::new(response), query };
        }
        Answer::NotOurs => {
            response.metadata.authoritative = false;
            return Step::Ask { query: query.clone(), response: Box::new(response) };
        }
    }
    Step::Done(response)
}

/// Completes a response with what upstream says.
pub(crate) async fn complete(forwarder: &Forwarder, mut response: Message, query: &Query) -> Message {
    let alias = !response.answers.is_empty();
    match forwarder.ask(query).await {
        Some(answer) => {
            response.answers.extend(answer.answers);
            response.authorities.extend(answer.authorities);
            // An alias of ours exists, whatever its target is.
            if !alias {
                response.metadata.response_code = answer.metadata.response_code;
            }
        }
        // The alias itself is an answer to some; to the others a target nobody could ask for is a failure.
        None if alias => {}
        None => response.metadata.response_code = ResponseCode::ServFail,
    }
    response
}

/// The bytes of a response of at most `bytes_max`; beyond that it is cut and says so.
pub(crate) fn encode(response: &Message, bytes_max: usize) -> Option<Vec<u8>> {
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= bytes_max {
        return Some(bytes);
    }
    // Askers that cannot use TCP still get some addresses, and all are told to ask again.
    let mut cut = response.truncate();
    let fits = |kept: usize, cut: &mut Message| {
        cut.answers = response.answers[..kept].to_vec();
        cut.to_vec().is_ok_and(|bytes| bytes.len() <= bytes_max)
    };
    let (mut low, mut high) = (0, response.answers.len());
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle, &mut cut) { low = middle } else { high = middle - 1 }
    }
    cut.answers = response.answers[..low].to_vec();
    cut.to_vec().ok().filter(|bytes| bytes.len() <= bytes_max)
}

/// How many bytes the asker of `packet` takes over UDP.
pub(crate) fn udp_bytes_max(packet: &[u8]) -> usize {
    let asked = Message::from_vec(packet).map_or(UDP_BYTES_MIN, |request| request.max_payload());
    usize::from(asked.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use proptest::prelude::*;

    use super::*;
    use crate::zone::ZoneConfig;

    fn zone() -> ArcSwap<Zone> {
        let config = ZoneConfig {
            domain: "cluster.local".into(),
            addresses: vec!["10.96.0.10".parse().unwrap()],
            reverse: vec![],
        };
        ArcSwap::from_pointee(Zone::new(config))
    }

    fn query(name: &str) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message
    }

    #[test]
    fn a_name_that_does_not_exist_says_for_how_long() {
        let Step::Done(response) = respond(&zone(), &query("x.cluster.local.").to_vec().unwrap(), 0) else {
            panic!()
        };
        assert_eq!(response.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(response.metadata.id, 7);
        assert!(response.metadata.authoritative);
        assert_eq!(response.authorities[0].record_type(), RecordType::SOA);
    }

    #[test]
    fn a_response_that_is_too_long_is_cut_and_says_so() {
        let mut response = query("many.").into_response();
        let name = Name::from_ascii("many.").unwrap();
        for i in 0..100 {
            response.add_answer(Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 0, 0, i))));
        }
        let bytes = encode(&response, 512).unwrap();
        assert!(bytes.len() <= 512 && bytes.len() > 400, "{}", bytes.len());
        let cut = Message::from_vec(&bytes).unwrap();
        assert!(cut.metadata.truncation);
        assert!(!encode(&response, 4096).unwrap().is_empty());
    }

    #[test]
    fn a_response_is_never_answered() {
        let response = query("x.cluster.local.").into_response().to_vec().unwrap();
        assert!(matches!(respond(&zone(), &response, 0), Step::Ignore));
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..80), flip in any::<(u8, u8)>()) {
            let zone = zone();
            let _ = respond(&zone, &packet, 0);
            let _ = udp_bytes_max(&packet);
            packet = query("web.shop.svc.cluster.local.").to_vec().unwrap();
            let at = usize::from(flip.0) % packet.len();
            packet[at] ^= flip.1;
            if let Step::Done(response) = respond(&zone, &packet, 1) {
                prop_assert!(encode(&response, 512).is_some());
            }
        }
    }
}
