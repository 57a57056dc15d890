//! Load that goes on while something is broken: new connections and one long-lived one, every failure noted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use failures::Failures;

/// Where others have the processors an answer may take long; none at all is a failure.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Requests to one address until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failures: Arc<Failures>,
    workers: Vec<JoinHandle<()>>,
}

/// What a load saw.
#[derive(Debug)]
pub struct Outcome {
    pub answered: u64,
    pub failures: Vec<String>,
}

impl Load {
    /// Starts one worker that opens a connection a request, and one that keeps its connection.
    pub fn start(target: SocketAddr) -> Load {
        let mut load = Load {
            stop: Arc::new(AtomicBool::new(false)),
            answered: Arc::default(),
            failures: Arc::default(),
            workers: Vec::new(),
        };
        load.spawn("new connection", move |kept| {
            *kept = None;
            request(&mut connect(target)?)
        });
        load.spawn("kept connection", move |kept| {
            if kept.is_none() {
                *kept = Some(connect(target)?);
            }
            request(kept.as_mut().context("the connection was just made")?)
        });
        load
    }

    fn spawn(
        &mut self,
        what: &'static str,
        mut once: impl FnMut(&mut Option<TcpStream>) -> Result<()> + Send + 'static,
    ) {
        let (stop, answered, failures) =
            (Arc::clone(&self.stop), Arc::clone(&self.answered), Arc::clone(&self.failures));
        self.workers.push(std::thread::spawn(move || {
            let mut kept = None;
            while !stop.load(Ordering::Relaxed) {
                match once(&mut kept) {
                    Ok(()) => {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        kept = None;
                        failures.note(format!("{what}: {error:#}"));
                    }
                }
                std::thread::sleep(PAUSE);
            }
        }));
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn finish(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                self.failures.note("a worker panicked".to_owned());
            }
        }
        Outcome { answered: self.answered(), failures: self.failures.take() }
    }
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, ANSWER_TIMEOUT).context("no connection")?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\n\r\n").context("cannot send")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).context("no answer")?;
        if read == 0 {
            bail!("the connection was closed after {} bytes", answer.len());
        }
        answer.extend_from_slice(&buffer[..read]);
        // The demo's body is one line.
        if answer.windows(4).any(|it| it == b"\r\n\r\n")
            && answer.ends_with(b"\n")
            && !answer.ends_with(b"\r\n\r\n")
        {
            return Ok(());
        }
    }
}

/// Failures of all workers.
mod failures {
    use std::sync::Mutex;

    const KEPT_MAX: usize = 1000;

    #[derive(Default)]
    pub struct Failures(Mutex<Vec<String>>);

    impl Failures {
        pub fn note(&self, failure: String) {
            let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if all.len() < KEPT_MAX {
                all.push(failure);
            }
        }

        pub fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        }
    }
}
