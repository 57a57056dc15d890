//! Many connections that are held, at both ends: a client that waits for the last of its own to fail, and a server that accepts
//! and says nothing.

use std::io::{BufRead, ErrorKind, Read};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use penstock_dataplane::monotonic_ns;

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers questions on standard input until it ends. `hold COUNT SERVICE` is answered twice: when all are connected, and with
/// the time when the last had failed.
pub fn run() -> Result<()> {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let answer = hold(&line?);
        println!("{}", answer.unwrap_or_else(|error| format!("error: {error:#}")));
    }
    Ok(())
}

fn hold(line: &str) -> Result<String> {
    let ["hold", count, service] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        bail!("not understood: {line}");
    };
    let (count, service) = (count.parse::<usize>()?, service.parse::<SocketAddrV4>()?);
    let connect = || {
        let stream = TcpStream::connect(service).with_context(|| format!("connecting to {service}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let streams: Vec<TcpStream> = (0..count).map(|_| connect()).collect::<Result<_>>()?;
    println!("holding");
    for mut stream in &streams {
        match stream.read(&mut [0]).map_err(|error| error.kind()) {
            Err(ErrorKind::ConnectionAborted) => {}
            other => bail!("a connection ended with {other:?}"),
        }
    }
    Ok(monotonic_ns().to_string())
}

/// Accepts at these addresses and holds what it accepts until its clients are gone, until standard input ends.
pub fn serve(addresses: &[SocketAddrV4]) -> Result<()> {
    for address in addresses {
        let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                let _ = stream.set_nonblocking(true);
                held.push(stream);
                // Those of the round before.
                if held.len().is_multiple_of(HELD_TOGETHER) {
                    held.retain(|mut it| {
                        matches!(it.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
                    });
                }
            }
        });
    }
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// After so many more those that ended are let go.
const HELD_TOGETHER: usize = 1024;
