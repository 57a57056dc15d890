//! A client that connects to a service again and again, and notes when it is led elsewhere for the first time.

use std::io::{BufRead, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use penstock_dataplane::monotonic_ns;

/// Between two connections: enough that three such clients leave the machine to what is measured.
const PAUSE: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers questions on standard input until it ends. `watch SERVICE PREFIX` is answered twice: when the first connection
/// was made, and with the time when one first reached an address of that /24.
pub fn run() -> Result<()> {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&line?);
        println!("{}", answer.unwrap_or_else(|error| format!("error: {error:#}")));
    }
    Ok(())
}

fn answer(line: &str) -> Result<String> {
    let ["watch", service, prefix] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        bail!("not understood: {line}");
    };
    let (service, prefix) = (service.parse::<SocketAddrV4>()?, prefix.parse::<Ipv4Addr>()?);
    if reached(service)?.is_some_and(|address| is_in(prefix, address)) {
        bail!("{service} leads to {prefix} before anything changed");
    }
    println!("watching");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        std::thread::sleep(PAUSE);
        if reached(service)?.is_some_and(|address| is_in(prefix, address)) {
            return Ok(monotonic_ns().to_string());
        }
    }
    bail!("{service} did not lead to {prefix} within {} s", PATIENCE.as_secs())
}

/// The address that answers for the service; none when the connection was ended because its endpoint left.
fn reached(service: SocketAddrV4) -> Result<Option<Ipv4Addr>> {
    let mut octets = [0; 4];
    match TcpStream::connect(service).and_then(|mut stream| stream.read_exact(&mut octets)) {
        Ok(()) => Ok(Some(octets.into())),
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error).with_context(|| format!("connecting to {service}")),
    }
}

fn is_in(prefix: Ipv4Addr, address: Ipv4Addr) -> bool {
    prefix.octets()[..3] == address.octets()[..3]
}
