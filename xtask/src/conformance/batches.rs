//! Tests in small batches: enough to keep every process busy to the end, few enough that starting them costs little.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use super::report::{Outcome, State};
use super::suite::Suite;

const BATCH_MAX: usize = 6;
const FAILURE_LINES: usize = 3;
/// What must not run beside anything else has this in its name.
const SERIAL: &str = "[Serial]";
/// What says of itself that it takes minutes, or was seen to: begun first and each by itself, so that nothing waits
/// behind it.
const LONG: [&str; 4] = ["[Slow]", "Probing container", "CronJob", "predictable order"];

/// What runs when.
pub struct Batches {
    pub beside: Vec<Vec<String>>,
    pub alone: Vec<Vec<String>>,
}

impl Batches {
    pub fn plan(tests: &[String], processes: usize) -> Self {
        let (alone, beside): (Vec<String>, Vec<String>) =
            tests.iter().cloned().partition(|test| test.contains(SERIAL));
        let (long, beside): (Vec<String>, Vec<String>) =
            beside.into_iter().partition(|test| LONG.iter().any(|word| test.contains(word)));
        let size = beside.len().div_ceil(processes.max(1)).clamp(1, BATCH_MAX);
        let batches = |tests: Vec<String>, size: usize| -> Vec<_> {
            tests.chunks(size).map(<[String]>::to_vec).collect()
        };
        let beside = [batches(long, 1), batches(beside, size)].concat();
        Self { beside, alone: batches(alone, BATCH_MAX) }
    }

    pub fn run(self, suite: &Suite, processes: usize) -> Result<Vec<Outcome>> {
        let total = self.beside.iter().chain(&self.alone).map(Vec::len).sum();
        let progress = Progress { total, done: AtomicUsize::new(0), failed: AtomicUsize::new(0) };
        let mut outcomes = share_out(self.beside, suite, processes, &progress)?;
        outcomes.extend(share_out(self.alone, suite, 1, &progress)?);
        Ok(outcomes)
    }
}

fn share_out(
    batches: Vec<Vec<String>>,
    suite: &Suite,
    processes: usize,
    progress: &Progress,
) -> Result<Vec<Outcome>> {
    let queue = Mutex::new(VecDeque::from(batches));
    let next = || queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
    let work = || -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        while let Some(batch) = next() {
            let done = suite.run(&batch)?;
            done.iter().for_each(|outcome| progress.tell(outcome));
            outcomes.extend(done);
        }
        Ok(outcomes)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..processes).map(|_| scope.spawn(work)).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            outcomes.extend(worker.join().map_err(|_| anyhow::anyhow!("a runner of tests panicked"))??);
        }
        Ok(outcomes)
    })
}

/// Said while it runs: a line a test, and why one failed.
struct Progress {
    total: usize,
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Progress {
    fn tell(&self, outcome: &Outcome) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let more = usize::from(outcome.state == State::Failed);
        let failed = self.failed.fetch_add(more, Ordering::Relaxed) + more;
        let word = match outcome.state {
            State::Passed => "passed ",
            State::Failed => "FAILED ",
            State::Skipped => "skipped",
        };
        println!(
            "[{done:>3}/{}, {failed} failed] {word} {:>5.1} s  {}",
            self.total, outcome.seconds, outcome.name
        );
        if outcome.state == State::Failed {
            outcome.message.lines().take(FAILURE_LINES).for_each(|line| println!("    {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_serial_runs_alone_and_the_rest_is_shared_out() {
        let tests: Vec<String> =
            (0..20).map(|n| format!("t{n}{}", if n % 5 == 0 { " [Serial]" } else { "" })).collect();
        let batches = Batches::plan(&tests, 8);
        assert_eq!(batches.beside.iter().map(Vec::len).collect::<Vec<_>>(), [2; 8]);
        assert_eq!(batches.alone, vec![vec!["t0 [Serial]", "t5 [Serial]", "t10 [Serial]", "t15 [Serial]"]]);
        assert_eq!(Batches::plan(&tests[1..3], 8).beside.len(), 2);
    }

    #[test]
    fn what_takes_long_begins_first_and_holds_nothing_up() {
        let mut tests: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
        tests[7] += " [Slow]";
        tests[9] += " CronJob";
        let beside = Batches::plan(&tests, 4).beside;
        assert_eq!(beside[..2], [vec!["t7 [Slow]"], vec!["t9 CronJob"]]);
        assert_eq!(beside[2..].iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5, 3]);
    }
}
