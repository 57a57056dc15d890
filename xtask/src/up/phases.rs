//! How long each phase took: shown while it runs, summed up at the end, written as JSON for the benchmarks.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

/// The phases so far. Those after [`Phases::builds_are_over`] are what starting a cluster costs.
pub struct Phases {
    done: Vec<(String, Duration)>,
    /// When the builds were over.
    start: Instant,
    builds: usize,
}

impl Phases {
    pub fn new() -> Phases {
        Phases { done: Vec::new(), start: Instant::now(), builds: 0 }
    }

    /// Runs one phase and shows its name while it runs.
    pub fn measure<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("- {name} ...");
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let outcome = work();
        self.done.push((name.to_owned(), start.elapsed()));
        outcome
    }

    pub fn builds_are_over(&mut self) {
        self.builds = self.done.len();
        self.start = Instant::now();
    }

    /// Notes that `what` was reached now, counted from the end of the builds.
    pub fn reached(&mut self, what: &str) {
        println!("- {what} after {:.2} s", self.start.elapsed().as_secs_f64());
        self.done.push((what.to_owned(), self.start.elapsed()));
    }

    pub fn print(&self) {
        println!("\n{:<44} {:>10}", "before", "took");
        for (index, (name, time)) in self.done.iter().enumerate() {
            if index == self.builds {
                println!("{:<44} {:>10}", "after the builds", "reached at");
            }
            println!("{name:<44} {:>8.2} s", time.as_secs_f64());
        }
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let rows: Vec<_> = self
            .done
            .iter()
            .enumerate()
            .map(|(index, (name, time))| {
                json!({ "phase": name, "seconds": time.as_secs_f64(), "after_builds": index >= self.builds })
            })
            .collect();
        std::fs::write(file, serde_json::to_vec_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}
