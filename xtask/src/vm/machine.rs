//! The machine: started with a kernel and an initramfs, listened to until it is off or was given up on.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Outcome;
use super::kernel::{self, Kernel};
use super::programs::ENDED;

pub const QEMU: &str = "qemu-system-x86_64";
/// Everything that can be emulated, but for cmpxchg16b: with it in use, kernels crashed in their allocator under Debian 12's
/// qemu 7.2, at once and in no way of theirs. They do without where it is missing.
const CPU: &str = "max,cx16=off,la57=off";
/// Memory of the machine: the tests' maps are small, the initramfs is not.
const MEMORY_MIB: u32 = 2_048;
/// How long it may say nothing. The verifier takes its time in software emulation.
const SILENCE_MAX: Duration = Duration::from_secs(300);
const LAST_LINES: usize = 40;

/// Boots it, and counts what the tests say on its serial line: so many programs are to end.
pub fn boot(kernel: &Kernel, initramfs: &Path, tests: usize, verbose: bool) -> Result<Outcome> {
    let begin = Instant::now();
    let log = kernel::folder().join(format!("{}.log", kernel.version));
    let mut written =
        std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut machine = Command::new(QEMU)
        .args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-cpu", CPU, "-smp", "2"])
        .args(["-accel", "tcg,thread=multi", "-m", &MEMORY_MIB.to_string()])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/init"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("cannot run {QEMU}"))?;
    let serial = machine.stdout.take().context("the machine has no serial line")?;
    let (lines, said) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(std::io::Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let mut heard = Heard::default();
    let silent = loop {
        match said.recv_timeout(SILENCE_MAX) {
            Ok(line) => {
                writeln!(written, "{line}")?;
                let matters = heard.note(&line);
                if verbose || matters {
                    println!("   {line}");
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break false,
            Err(mpsc::RecvTimeoutError::Timeout) => break true,
        }
    };
    if silent {
        let _ = machine.kill();
    }
    machine.wait().context("the machine does not end")?;
    let _ = reader.join();
    println!("   {:.0} s; all it said is in {}", begin.elapsed().as_secs_f64(), log.display());
    if silent || heard.ended < tests {
        show_end(&log);
        let why = if silent { "said nothing for too long" } else { "ended before its tests did" };
        bail!("the machine with Linux {} {why}", kernel.version);
    }
    // A program that dies says nothing of its tests.
    let failed = heard.failed.max(heard.died);
    Ok(Outcome { kernel: kernel.version, passed: heard.passed, failed, skipped: heard.skipped })
}

/// What was heard on the serial line.
#[derive(Default)]
struct Heard {
    passed: u64,
    failed: u64,
    skipped: u64,
    died: u64,
    ended: usize,
}

impl Heard {
    /// Counts a line. Whether a reader should see it.
    fn note(&mut self, line: &str) -> bool {
        if let Some(ended) = line.strip_prefix(ENDED) {
            self.ended += 1;
            let well = ended.ends_with(" 0");
            self.died += u64::from(!well);
            return false;
        }
        if let Some(results) = line.strip_prefix("test result: ") {
            for part in results.split([';', '.']) {
                let mut words = part.split_whitespace();
                if let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                    match what {
                        "passed" => self.passed += count,
                        "failed" => self.failed += count,
                        _ => {}
                    }
                }
            }
            return true;
        }
        let skipped = line.trim_start().starts_with("SKIPPED:");
        self.skipped += u64::from(skipped);
        skipped || line.starts_with("Running ") || line.starts_with("Linux ") || line.ends_with("FAILED")
    }
}

fn show_end(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        println!("   | {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_counted_and_a_program_that_dies_is_a_failure() {
        let mut heard = Heard::default();
        for line in [
            "test a ... ok",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s",
            "PENSTOCK-ENDED packet 0",
            "SKIPPED: no root",
            "PENSTOCK-ENDED dataplane 139",
        ] {
            heard.note(line);
        }
        assert_eq!((heard.passed, heard.failed, heard.skipped), (12, 0, 1));
        assert_eq!((heard.died, heard.ended), (1, 2));
    }
}
