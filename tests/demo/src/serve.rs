//! The server: every answer names the pod and the node that gave it.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections served at once; one more is closed unanswered.
const CONNECTIONS_MAX: usize = 1024;
const REQUEST_LINE_MAX: u64 = 8 * 1024;
const HEADERS_MAX: usize = 100;
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Serves HTTP on the first port (8080) and UDP on the second (8081) until killed.
pub fn run(ports: &[&str]) -> Result<(), String> {
    // PID 1 has no default dispositions: without this a pod would only end when its grace period is over.
    // SAFETY: set before any other thread exists; the default action is a valid disposition for SIGTERM.
    unsafe {
        libc::signal(libc::SIGTERM, exit_now as *const () as libc::sighandler_t);
    }
    let http_port = port(ports.first(), 8080)?;
    let udp_port = port(ports.get(1), 8081)?;
    let name = Arc::new(who());
    let listener = bind(TcpListener::bind, http_port)?;
    let datagrams = bind(UdpSocket::bind, udp_port)?;
    println!("{} serves HTTP on port {http_port} and UDP on port {udp_port}", name.trim_end());
    let udp_name = Arc::clone(&name);
    std::thread::spawn(move || answer_datagrams(&datagrams, &udp_name));
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (name, open) = (Arc::clone(&name), Arc::clone(&open));
        std::thread::spawn(move || {
            // A client that goes away mid-request is its own affair.
            let _ = answer_connection(stream, &name);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

extern "C" fn exit_now(_: libc::c_int) {
    // SAFETY: _exit takes any status and never returns.
    unsafe { libc::_exit(0) }
}

fn bind<S>(open: impl Fn(SocketAddr) -> std::io::Result<S>, port: u16) -> Result<S, String> {
    open((Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|_| open((std::net::Ipv4Addr::UNSPECIFIED, port).into()))
        .map_err(|error| format!("cannot listen on port {port}: {error}"))
}

fn port(word: Option<&&str>, default: u16) -> Result<u16, String> {
    word.map_or(Ok(default), |text| text.parse().map_err(|_| format!("`{text}` is not a port")))
}

fn who() -> String {
    let of =
        |variable: &str, otherwise: &str| std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("hello from {} on {}\n", of("POD_NAME", host.trim()), of("NODE_NAME", "an unnamed node"))
}

fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    while let Ok((_, client)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(name.as_bytes(), client);
    }
}

fn answer_connection(stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some(keep) = read_request(&mut reader)? else {
            return Ok(());
        };
        let connection = if keep { "keep-alive" } else { "close" };
        writer.write_all(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{name}",
                name.len()
            )
            .as_bytes(),
        )?;
        if !keep {
            return Ok(());
        }
    }
}

/// Reads a request's head; `None` at the end of the connection, else whether the client keeps it open.
fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<bool>> {
    let Some(first) = read_line(reader)? else {
        return Ok(None);
    };
    let mut keep = first.trim_end().ends_with("HTTP/1.1");
    for _ in 0..HEADERS_MAX {
        let Some(line) = read_line(reader)? else {
            return Ok(None);
        };
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some(keep));
        }
        if let Some(value) = line.strip_prefix("connection:") {
            keep = !value.contains("close") && (keep || value.contains("keep-alive"));
        }
    }
    Ok(None)
}

fn read_line(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    use std::io::Read;
    let mut line = Vec::new();
    let read = reader.by_ref().take(REQUEST_LINE_MAX).read_until(b'\n', &mut line)?;
    Ok((read > 0 && line.ends_with(b"\n")).then(|| String::from_utf8_lossy(&line).into_owned()))
}
