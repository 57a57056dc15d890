//! The asking end: loops of system calls, each operation timed.

use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};

use crate::process;

const PATIENCE: Duration = Duration::from_secs(5);
/// What a server of transfers acknowledges.
pub const BULK_CHUNK_BYTES: usize = 256 << 10;
const MEGABYTE: f64 = 1e6;

/// What is done over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A byte there and back on a connection that stays.
    TcpRr,
    /// A connection, a byte there and back, its end.
    TcpCrr,
    /// A datagram there and back on a connected socket.
    UdpRr,
    /// A datagram there and back, its target named each time.
    UdpSendto,
    /// As much as goes through one connection.
    Bulk,
    /// socket(), connect(), close() of a datagram socket: no packet.
    Connect,
    /// connect() of one datagram socket, again and again: no packet.
    Reconnect,
}

impl Kind {
    const ALL: [Kind; 7] =
        [Kind::TcpRr, Kind::TcpCrr, Kind::UdpRr, Kind::UdpSendto, Kind::Bulk, Kind::Connect, Kind::Reconnect];
    /// Those for which a service has ports, by `port_offset`.
    pub const SERVED: [Kind; 4] = [Kind::TcpRr, Kind::TcpCrr, Kind::UdpRr, Kind::Bulk];

    pub fn name(self) -> &'static str {
        match self {
            Kind::TcpRr => "TCP_RR",
            Kind::TcpCrr => "TCP_CRR",
            Kind::UdpRr => "UDP_RR",
            Kind::UdpSendto => "UDP_RR-sendto",
            Kind::Bulk => "throughput",
            Kind::Connect => "connect",
            Kind::Reconnect => "reconnect",
        }
    }

    /// The server's port for it, from the first port of a server.
    pub fn port_offset(self) -> u16 {
        match self {
            Kind::TcpRr => 1,
            Kind::TcpCrr => 2,
            Kind::UdpRr | Kind::UdpSendto | Kind::Connect | Kind::Reconnect => 3,
            Kind::Bulk => 4,
        }
    }

    pub fn is_udp(self) -> bool {
        self.port_offset() == Kind::UdpRr.port_offset()
    }
}

/// A path made ready.
struct Slot {
    kind: Kind,
    target: SocketAddrV4,
    stream: Option<TcpStream>,
    datagrams: Option<UdpSocket>,
    chunk: Vec<u8>,
}

/// Answers questions on standard input until it ends.
pub fn run(cpu: usize) -> Result<()> {
    super::pin(cpu)?;
    println!("ready");
    let mut slots = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&line?, &mut slots);
        println!("{}", answer.unwrap_or_else(|error| format!("error: {error:#}")));
    }
    Ok(())
}

fn answer(line: &str, slots: &mut Vec<Slot>) -> Result<String> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["open", kind, target] => {
            let kind = Kind::ALL.into_iter().find(|it| it.name() == kind).context("an unknown kind")?;
            slots.push(Slot::open(kind, target.parse()?)?);
            Ok((slots.len() - 1).to_string())
        }
        ["run", slot, amount, server] => {
            let slot = slots.get_mut(slot.parse::<usize>()?).context("no such slot")?;
            let (server, amount) = (server.parse()?, amount.parse()?);
            let busy = || process::cpu_ns(server) + process::cpu_ns(std::process::id());
            let before = busy();
            let (p50_ns, operations) = match slot.kind {
                Kind::Bulk => slot.transfer(amount)?,
                _ => slot.operate(amount)?,
            };
            let cpu_ns = (busy() - before) as f64 / operations;
            Ok(format!("{p50_ns:.3} {cpu_ns:.3}"))
        }
        _ => bail!("not understood: {line}"),
    }
}

impl Slot {
    fn open(kind: Kind, target: SocketAddrV4) -> Result<Slot> {
        let mut slot = Slot { kind, target, stream: None, datagrams: None, chunk: Vec::new() };
        match kind {
            Kind::TcpRr => slot.stream = Some(stream(target)?),
            Kind::Bulk => {
                slot.stream = Some(stream(target)?);
                slot.chunk = vec![7; BULK_CHUNK_BYTES];
            }
            Kind::TcpCrr | Kind::Connect => {}
            Kind::UdpRr | Kind::UdpSendto | Kind::Reconnect => {
                let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                datagrams.set_read_timeout(Some(PATIENCE))?;
                if kind != Kind::UdpSendto {
                    datagrams.connect(target)?;
                }
                slot.datagrams = Some(datagrams);
            }
        }
        if kind != Kind::Bulk {
            slot.once().context("the first time")?;
        }
        Ok(slot)
    }

    /// One operation.
    fn once(&mut self) -> Result<()> {
        let mut byte = [0; 64];
        match (self.kind, &mut self.stream, &self.datagrams) {
            (Kind::TcpRr, Some(stream), _) => {
                stream.write_all(&[1])?;
                stream.read_exact(&mut byte[..1])?;
            }
            (Kind::TcpCrr, _, _) => {
                let mut stream = stream(self.target)?;
                stream.write_all(&[1])?;
                stream.read_exact(&mut byte[..1])?;
                stream.shutdown(Shutdown::Write)?;
                // The server's end arrives: the connection is over on both sides before the next begins.
                if stream.read(&mut byte)? != 0 {
                    bail!("more than was asked for");
                }
            }
            (Kind::UdpRr, _, Some(datagrams)) => {
                datagrams.send(&[1])?;
                datagrams.recv(&mut byte)?;
            }
            (Kind::UdpSendto, _, Some(datagrams)) => {
                datagrams.send_to(&[1], self.target)?;
                let (_, from) = datagrams.recv_from(&mut byte)?;
                if from != self.target.into() {
                    bail!("{from} answers for {}", self.target);
                }
            }
            (Kind::Connect, _, _) => {
                let new = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None)?;
                connect(new.as_raw_fd(), &SockaddrIn::from(self.target))?;
            }
            (Kind::Reconnect, _, Some(datagrams)) => {
                connect(datagrams.as_raw_fd(), &SockaddrIn::from(self.target))?;
            }
            _ => bail!("the slot has no socket"),
        }
        Ok(())
    }

    /// Median nanoseconds of one operation, and how many there were.
    fn operate(&mut self, operations: usize) -> Result<(f64, f64)> {
        let mut took = Vec::with_capacity(operations);
        let mut before = Instant::now();
        for _ in 0..operations {
            self.once()?;
            let after = Instant::now();
            took.push((after - before).as_nanos() as f64);
            before = after;
        }
        took.sort_by(f64::total_cmp);
        Ok((took.get(operations / 2).copied().unwrap_or_default(), operations as f64))
    }

    /// Nanoseconds a megabyte until so many chunks have arrived, and how many megabytes there were.
    fn transfer(&mut self, chunks: usize) -> Result<(f64, f64)> {
        let stream = self.stream.as_mut().context("the slot has no stream")?;
        let begin = Instant::now();
        for _ in 0..chunks {
            stream.write_all(&self.chunk)?;
        }
        stream.read_exact(&mut vec![0; chunks])?;
        let megabytes = (chunks * BULK_CHUNK_BYTES) as f64 / MEGABYTE;
        Ok((begin.elapsed().as_nanos() as f64 / megabytes, megabytes))
    }
}

fn stream(target: SocketAddrV4) -> Result<TcpStream> {
    let stream = TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
