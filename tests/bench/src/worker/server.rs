//! The serving end: answers one byte with one byte, on connections that stay, on connections that do not, and by
//! datagrams; and takes in all it is sent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

use super::SERVER_PORTS;
use super::client::{BULK_CHUNK_BYTES, Kind};

/// Serves until its standard input ends.
pub fn run(cpu: usize, address: Ipv4Addr) -> Result<()> {
    super::pin(cpu)?;
    for base in SERVER_PORTS {
        let at = |kind: Kind| SocketAddrV4::new(address, base + kind.port_offset());
        let listen = |kind| TcpListener::bind(at(kind)).with_context(|| format!("listening on {}", at(kind)));
        let kept = listen(Kind::TcpRr)?;
        thread::spawn(move || each(&kept, |stream| drop(thread::spawn(move || echo(stream)))));
        let short = listen(Kind::TcpCrr)?;
        thread::spawn(move || each(&short, echo));
        let sink = listen(Kind::Bulk)?;
        thread::spawn(move || each(&sink, |stream| drop(thread::spawn(move || swallow(stream)))));
        let datagrams = UdpSocket::bind(at(Kind::UdpRr)).context("a socket for datagrams")?;
        thread::spawn(move || {
            let mut byte = [0; 64];
            while let Ok((length, from)) = datagrams.recv_from(&mut byte) {
                let _ = datagrams.send_to(&byte[..length], from);
            }
        });
    }
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

fn each(listener: &TcpListener, serve: impl Fn(TcpStream)) {
    for stream in listener.incoming().flatten() {
        let _ = stream.set_nodelay(true);
        serve(stream);
    }
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0; 64];
    while let Ok(length) = stream.read(&mut byte) {
        if length == 0 || stream.write_all(&byte[..length]).is_err() {
            return;
        }
    }
}

/// Says a byte for every chunk it took in, so that the sender knows when all has arrived.
fn swallow(mut stream: TcpStream) {
    let mut bytes = vec![0; BULK_CHUNK_BYTES];
    let mut taken = 0;
    while let Ok(length) = stream.read(&mut bytes) {
        taken += length;
        while taken >= BULK_CHUNK_BYTES {
            taken -= BULK_CHUNK_BYTES;
            if stream.write_all(&[1]).is_err() {
                return;
            }
        }
        if length == 0 {
            return;
        }
    }
}
