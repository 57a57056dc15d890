//! Questions about other people's names, asked of the node's resolvers.
//!
//! It exists to bound what such questions may cost: how many at once, how long each, and nothing at all while no
//! resolver answers. A resolver that failed is left alone for a while, so that on a node without a way out every
//! lookup of a foreign name fails at once instead of after seconds. It must not know the zone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::resolv_conf;

/// Questions upstream at once; one more is refused.
pub const QUERIES_MAX: usize = 512;
/// How long one resolver may take. Askers give up after five seconds, and two may have to be tried before.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// How long a resolver that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// How often the resolver file is looked at again.
const REREAD_EVERY: Duration = Duration::from_secs(10);
/// UDP answers asked for: fits every path without fragments (dnsflagday.net/2020).
const UDP_BYTES_MAX: u16 = 1232;

/// Asks upstream.
pub struct Forwarder {
    resolv_conf: PathBuf,
    own: Vec<IpAddr>,
    slots: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    servers: Vec<SocketAddr>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
    left_alone: HashMap<SocketAddr, Instant>,
}

impl Forwarder {
    /// Resolvers are read from `resolv_conf`, again whenever it changes; `own` are the addresses we serve on.
    pub fn new(resolv_conf: impl Into<PathBuf>, own: Vec<IpAddr>) -> Self {
        Self {
            resolv_conf: resolv_conf.into(),
            own,
            slots: Semaphore::new(QUERIES_MAX),
            state: Mutex::default(),
        }
    }

    /// A forwarder with fixed resolvers.
    pub fn to(servers: Vec<SocketAddr>) -> Self {
        let forwarder = Self::new("", Vec::new());
        forwarder.state.lock().servers = servers;
        forwarder
    }

    /// The answer of the first resolver that gives one; `None` when none does, or too many questions are under way.
    pub(crate) async fn ask(&self, query: &Query) -> Option<Message> {
        let _slot = self.slots.try_acquire().ok()?;
        for server in self.candidates() {
            match tokio::time::timeout(ANSWER_WITHIN, ask_one(server, query)).await {
                Ok(Ok(answer)) => return Some(answer),
                failed => {
                    tracing::debug!(%server, ?failed, "a resolver did not answer");
                    self.state.lock().left_alone.insert(server, Instant::now() + LEFT_ALONE);
                }
            }
        }
        None
    }

    fn candidates(&self) -> Vec<SocketAddr> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let due = state.looked.is_none_or(|looked| now.duration_since(looked) >= REREAD_EVERY);
        if due && !self.resolv_conf.as_os_str().is_empty() {
            state.looked = Some(now);
            let modified = std::fs::metadata(&self.resolv_conf).and_then(|m| m.modified()).ok();
            if modified.is_none() || modified != state.modified {
                let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
                state.servers = resolv_conf::parse(&text, &self.own);
                state.modified = modified;
            }
        }
        state.left_alone.retain(|_, until| *until > now);
        state.servers.iter().filter(|server| !state.left_alone.contains_key(server)).copied().collect()
    }
}

/// Asks over UDP from a fresh port with a fresh id, and over TCP when the answer did not fit.
async fn ask_one(server: SocketAddr, query: &Query) -> std::io::Result<Message> {
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(std::io::Error::other)?;

    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel drops packets of others, and reports a closed port as an error at once.
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = Message::from_vec(&buffer[..length]).ok().filter(|a| belongs(a, &question)) {
            return if answer.metadata.truncation {
                ask_tcp(server, &bytes, &question).await
            } else {
                Ok(answer)
            };
        }
    }
}

async fn ask_tcp(server: SocketAddr, bytes: &[u8], question: &Message) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(std::io::Error::other)?;
    match belongs(&answer, question) {
        true => Ok(answer),
        false => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

fn belongs(answer: &Message, question: &Message) -> bool {
    answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == question.queries
}
