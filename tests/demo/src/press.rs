//! Load that goes on while a test breaks something: connections at a rate, some that are kept, and datagrams. Everything
//! that goes wrong is counted; the first failures and the last are told, with the seconds since the beginning.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Under a load that fills the machine an answer may take long; none at all is a failure.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECTING: usize = 12;
const KEPT: usize = 8;
const ASKING: usize = 2;
const PAUSE: Duration = Duration::from_millis(5);
const FAILURES_TOLD: usize = 10;
const ANSWER_MAX: usize = 64 * 1024;

struct Tally {
    began: Instant,
    stop: AtomicBool,
    connections: AtomicU64,
    requests: AtomicU64,
    reconnects: AtomicU64,
    datagrams: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    first: Vec<String>,
    /// Of those that are not among the first.
    last: Option<String>,
}

/// Presses HTTP at one address with so many connections a second, and asks over UDP at another, until the end of its
/// standard input. Prints what came of it.
pub fn run(http: &str, udp: &str, rate: &str) -> Result<(), String> {
    let address = |text: &str| {
        let found = text.to_socket_addrs().map_err(|error| format!("{text}: {error}"))?.next();
        found.ok_or_else(|| format!("{text} has no address"))
    };
    let (http, udp) = (address(http)?, address(udp)?);
    let rate: u32 =
        rate.parse().ok().filter(|it| *it > 0).ok_or_else(|| format!("`{rate}` is no rate a second"))?;
    let tally = Arc::new(Tally::new());
    let mut workers = Vec::new();
    let mut spawn = |work: Box<dyn Fn(&Tally) + Send>| {
        let tally = Arc::clone(&tally);
        workers.push(std::thread::spawn(move || work(&tally)));
    };
    let pace = Duration::from_secs(1) * CONNECTING as u32 / rate;
    (0..CONNECTING).for_each(|_| spawn(Box::new(move |tally| connect_on(tally, http, pace))));
    (0..KEPT).for_each(|_| spawn(Box::new(move |tally| keep_on(tally, http))));
    (0..ASKING).for_each(|_| spawn(Box::new(move |tally| ask_on(tally, udp))));

    println!("pressing");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    tally.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        if worker.join().is_err() {
            tally.fail("a worker panicked".to_owned());
        }
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} connections {} requests {} reconnects {} datagrams {} failed",
        of(&tally.connections),
        of(&tally.requests),
        of(&tally.reconnects),
        of(&tally.datagrams),
        of(&tally.failed)
    );
    let failures = tally.failures.lock().unwrap_or_else(PoisonError::into_inner);
    for failure in failures.first.iter().chain(&failures.last) {
        println!("failure: {failure}");
    }
    Ok(())
}

impl Tally {
    fn new() -> Self {
        let count = AtomicU64::default;
        Self {
            began: Instant::now(),
            stop: AtomicBool::default(),
            connections: count(),
            requests: count(),
            reconnects: count(),
            datagrams: count(),
            failed: count(),
            failures: Mutex::default(),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, count: &AtomicU64, what: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => drop(count.fetch_add(1, Ordering::Relaxed)),
            Err(error) => self.fail(format!("{what}: {error}")),
        }
    }

    fn fail(&self, failure: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let failure = format!("after {:.3} s: {failure}", self.began.elapsed().as_secs_f64());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.first.len() < FAILURES_TOLD {
            failures.first.push(failure);
        } else {
            failures.last = Some(failure);
        }
    }
}

/// A connection a request, at a pace; what was slow is made up for.
fn connect_on(tally: &Tally, to: SocketAddr, pace: Duration) {
    let mut due = Instant::now();
    while tally.goes_on() {
        let outcome = open(to).and_then(|mut stream| request(&mut stream, false).map_err(|it| it.1));
        tally.note(&tally.connections, "new connection", outcome);
        due = (due + pace).max(Instant::now() - Duration::from_millis(100));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Requests on one connection. When its server closes it before it answers anything, the request goes out once more on a
/// new one, as HTTP clients do (RFC 9110, 9.2.2).
fn keep_on(tally: &Tally, to: SocketAddr) {
    let mut kept: Option<TcpStream> = None;
    while tally.goes_on() {
        let reused = kept.take().map(|mut stream| (request(&mut stream, true), stream));
        let outcome = match reused {
            Some((Ok(()), stream)) => Ok(stream),
            Some((Err((true, error)), _)) => Err(error),
            reused => {
                if reused.is_some() {
                    tally.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                open(to).and_then(|mut stream| {
                    request(&mut stream, true).map_err(|it| it.1)?;
                    Ok(stream)
                })
            }
        };
        let outcome = outcome.map(|stream| kept = Some(stream));
        tally.note(&tally.requests, "kept connection", outcome);
        std::thread::sleep(PAUSE);
    }
}

/// Datagrams, by turns from one socket and from new ones.
fn ask_on(tally: &Tally, to: SocketAddr) {
    let open = || {
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        Ok::<_, String>(socket)
    };
    let one = open();
    let ask = |socket: &UdpSocket| {
        let mut answer = [0; 2048];
        let exchange = socket.send_to(b"who?", to).and_then(|_| socket.recv_from(&mut answer));
        match exchange {
            Ok((_, from)) if from == to => Ok(()),
            Ok((_, from)) => Err(format!("{from} answers instead of {to}")),
            Err(error) => Err(error.to_string()),
        }
    };
    while tally.goes_on() {
        let outcome = one.as_ref().map_err(Clone::clone).and_then(ask);
        tally.note(&tally.datagrams, "datagram of one socket", outcome);
        tally.note(&tally.datagrams, "datagram of a new socket", open().and_then(|it| ask(&it)));
        std::thread::sleep(PAUSE);
    }
}

fn open(to: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| format!("connecting: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// One exchange. An error says whether an answer had begun.
fn request(stream: &mut TcpStream, keep: bool) -> Result<(), (bool, String)> {
    let connection = if keep { "keep-alive" } else { "close" };
    let head = format!("GET / HTTP/1.1\r\nHost: demo\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(|error| (false, format!("sending: {error}")))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let begun = !answer.is_empty();
        let read = stream.read(&mut buffer).map_err(|error| (begun, format!("receiving: {error}")))?;
        if read == 0 {
            return Err((begun, format!("closed after {} bytes", answer.len())));
        }
        answer.extend_from_slice(&buffer[..read]);
        if is_whole(&answer) {
            return Ok(());
        }
        if answer.len() > ANSWER_MAX {
            return Err((true, "an endless answer".to_owned()));
        }
    }
}

/// Whether an answer of the demo's server is complete: its body has the length that its head says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    length.and_then(|text| text.parse().ok()).is_some_and(|length: usize| body.len() >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"));
    }
}
