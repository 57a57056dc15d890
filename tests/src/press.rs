//! The demo's own load, in pods and on the host: `demo press`, told to stop by the end of its input.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A load that goes on until it is finished; killed when it is dropped before.
pub struct Press {
    what: String,
    child: Option<Child>,
    output: BufReader<ChildStdout>,
}

/// What a load saw.
#[derive(Debug)]
pub struct Pressed {
    pub what: String,
    pub connections: u64,
    pub requests: u64,
    pub reconnects: u64,
    pub datagrams: u64,
    pub failed: u64,
    /// The first failures, and the last.
    pub failures: Vec<String>,
}

impl Press {
    /// Starts a command that ends in `demo press ..`, and waits until it presses.
    pub fn start(what: &str, mut command: Command) -> Result<Press> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = child.with_context(|| format!("{what} does not start"))?;
        let output = child.stdout.take().context("no output")?;
        let mut press = Press { what: what.to_owned(), child: Some(child), output: BufReader::new(output) };
        let mut line = String::new();
        press.output.read_line(&mut line)?;
        ensure!(line.trim() == "pressing", "{what} says {line:?}");
        Ok(press)
    }

    /// Stops it.
    pub fn finish(mut self) -> Result<Pressed> {
        let mut child = self.child.take().context("it is finished")?;
        drop(child.stdin.take());
        let mut said = String::new();
        let read = self.output.read_to_string(&mut said);
        child.wait()?;
        read?;
        Pressed::read(&self.what, &said)
    }
}

impl Drop for Press {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Pressed {
    /// Reads what `demo press` says at its end.
    pub fn read(what: &str, said: &str) -> Result<Pressed> {
        let counts = said.lines().find(|line| line.ends_with(" failed")).unwrap_or_default();
        let of = |unit: &str| {
            let words: Vec<&str> = counts.split(' ').collect();
            let count = words.windows(2).find(|pair| pair[1] == unit).map(|pair| pair[0].parse());
            count.and_then(Result::ok).with_context(|| format!("{what} says {said:?}"))
        };
        Ok(Pressed {
            connections: of("connections")?,
            requests: of("requests")?,
            reconnects: of("reconnects")?,
            datagrams: of("datagrams")?,
            failed: of("failed")?,
            failures: said
                .lines()
                .filter_map(|line| line.strip_prefix("failure: ").map(str::to_owned))
                .collect(),
            what: what.to_owned(),
        })
    }

    /// Nothing failed, and enough was tried for that to mean something.
    pub fn check(&self, connections_min: u64) -> Result<()> {
        ensure!(self.failed == 0, "{} lost {}: {:?}", self.what, self.failed, self.failures);
        ensure!(
            self.connections >= connections_min && self.requests > 0 && self.datagrams > 0,
            "{} pressed too little: {self:?}",
            self.what
        );
        Ok(())
    }
}

/// The demo program as it is in the image, for use on the host.
pub fn demo() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("no target folder")?;
    let demo = target.join("static/debug/demo");
    ensure!(demo.is_file(), "no {}; `cargo xtask image` builds it", demo.display());
    Ok(demo)
}
