//! The clients: one connection or datagram an attempt, so that each is balanced anew.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_MAX: u64 = 1024 * 1024;

/// GETs `url` `count` times (1) and prints each body; fails at the first failure.
pub fn fetch_all(url: &str, count: Option<&str>) -> Result<(), String> {
    for _ in 0..times(count)? {
        print!("{}", fetch(url)?);
    }
    Ok(())
}

/// Sends a datagram to `address` `count` times (1), each from a new socket, and prints each answer.
pub fn ask_all(address: &str, count: Option<&str>) -> Result<(), String> {
    for _ in 0..times(count)? {
        print!("{}", ask(address)?);
    }
    Ok(())
}

/// Prints every address of a name, one a line.
pub fn resolve(name: &str) -> Result<(), String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| format!("cannot resolve {name}: {error}"))?;
    let addresses: std::collections::BTreeSet<_> = found.map(|address| address.ip()).collect();
    addresses.iter().for_each(|address| println!("{address}"));
    Ok(())
}

fn times(count: Option<&str>) -> Result<u32, String> {
    count.map_or(Ok(1), |text| text.parse().map_err(|_| format!("`{text}` is not a count")))
}

fn fetch(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("`{url}` does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // An IPv6 address is in brackets, and its colons are no port's.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let address = if has_port { host.to_owned() } else { format!("{host}:80") };
    let failed = |error: std::io::Error| format!("cannot fetch {url}: {error}");
    let target =
        address.to_socket_addrs().map_err(failed)?.next().ok_or_else(|| format!("{host} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{url} gave no HTTP answer"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{url} answered {}", head.lines().next().unwrap_or_default())),
    }
}

fn ask(address: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("no answer from {address}: {error}");
    let target = address.to_socket_addrs().map_err(failed)?.next();
    let target = target.ok_or_else(|| format!("{address} is no address"))?;
    let own = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(own).map_err(failed)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    socket.send_to(b"who?", target).map_err(failed)?;
    let mut buffer = [0; 2048];
    let (length, _) = socket.recv_from(&mut buffer).map_err(failed)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
