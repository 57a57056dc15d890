//! The server over loopback: UDP, TCP after truncation, upstream present and absent.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::zone::{Endpoint, Exposure, ServiceName, ServiceRecord, ZoneConfig};

/// No answer takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(forwarder: Forwarder) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let mut zone = Zone::new(ZoneConfig {
        domain: "cluster.local".into(),
        addresses: vec!["10.96.0.10".parse().unwrap()],
        reverse: vec![],
    });
    let endpoint = |i: u8| Endpoint { address: [10, 244, 0, i].into(), hostname: None, ports: Arc::from([]) };
    zone.insert(ServiceRecord {
        name: ServiceName { namespace: "a".into(), name: "big".into() },
        exposure: Exposure::Headless((0..100).map(endpoint).collect()),
        ports: vec![],
    });
    let listening = Listening::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listening.address().unwrap();
    let shutdown = CancellationToken::new();
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    tokio::spawn(serve(listening, zone, Arc::new(forwarder), shutdown.clone()));
    (address, shutdown.drop_guard())
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(9, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

async fn ask_udp(server: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query(name), server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

#[tokio::test]
async fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let (server, _guard) = start(Forwarder::to(vec![])).await;
    let cut = ask_udp(server, "big.a.svc.cluster.local.").await;
    assert!(cut.metadata.truncation);
    assert!(!cut.answers.is_empty() && cut.answers.len() < 100);

    let mut stream = TcpStream::connect(server).await.unwrap();
    for _ in 0..2 {
        let packet = query("big.a.svc.cluster.local.");
        stream.write_u16(packet.len() as u16).await.unwrap();
        stream.write_all(&packet).await.unwrap();
        let whole = Message::from_vec(&read_packet(&mut stream).await.unwrap()).unwrap();
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 100);
    }
}

#[tokio::test]
async fn without_a_resolver_foreign_names_fail_at_once() {
    let (server, _guard) = start(Forwarder::to(vec![])).await;
    let answer = ask_udp(server, "example.com.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    // At once: nothing is waited for, neither a socket nor time.
    let query = Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A);
    let nobody = Forwarder::to(vec![]);
    let asked = pin!(nobody.ask(&query)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(asked, Poll::Ready(None)), "{asked:?}");
}

#[tokio::test]
async fn a_foreign_name_is_asked_of_the_resolver_that_answers() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, asker)) = upstream.recv_from(&mut buffer).await {
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let name = request.queries[0].name().clone();
            let mut response = request.into_response();
            response.add_answer(Record::from_rdata(name, 30, RData::A(A::new(192, 0, 2, 1))));
            upstream.send_to(&response.to_vec().unwrap(), asker).await.unwrap();
        }
    });
    // The first resolver's port is closed: its refusal must not cost the asker its timeout.
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (server, _guard) = start(Forwarder::to(vec![closed, address])).await;
    let answer = ask_udp(server, "example.com.").await;
    assert_eq!(answer.metadata.id, 9);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers[0].data.to_string(), "192.0.2.1");
    assert!(!answer.metadata.authoritative);
}

#[tokio::test]
async fn hostile_packets_do_not_stop_the_server() {
    let (server, _guard) = start(Forwarder::to(vec![])).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 11, 12, 13, 64, 512, 4000] {
        socket.send_to(&vec![0x41; length], server).await.unwrap();
        socket.send_to(&vec![0; length], server).await.unwrap();
    }
    let answer = ask_udp(server, "none.a.svc.cluster.local.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}
