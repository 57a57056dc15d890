//! `node-agent observe`: what the programs tell, read, named, filtered and shown, until somebody says stop.
//!
//! Must not know the command line, nor where names come from.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use penstock_dataplane::{DataplaneError, Observer, ServiceNames, Wanted, monotonic_ns};

use crate::filter::Filter;
use crate::names::Names;
use crate::sighting::{Clock, Sighting};

/// How soon a word to stop is heard.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// How much is read before what was lost is looked at again.
const READ_MAX: usize = 1024;

/// How an observer shows what it sees.
#[derive(Debug, Clone)]
pub struct Show {
    /// What the programs are to tell.
    pub wanted: Wanted,
    /// What of it is shown.
    pub filter: Filter,
    /// A line of JSON each, instead of text.
    pub json: bool,
    /// At the end the last so many instead of all as they come.
    pub last: Option<usize>,
    /// So many, and then the end.
    pub count: Option<u64>,
}

/// Why observing ended.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The maps.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// Whoever reads what is shown.
    #[error("writing what is observed")]
    Write(#[source] io::Error),
}

/// Observes until `stop`, or until nobody reads any more, which is no error. `ready` is called once the programs tell.
/// What is lost is said on `complaints`.
pub fn observe(
    directory: &Path,
    show: &Show,
    names: &RwLock<Names>,
    stop: &AtomicBool,
    out: &mut dyn Write,
    complaints: &mut dyn Write,
) -> Result<(), ObserveError> {
    let services = ServiceNames::open(directory)?;
    let mut observer = Observer::open(directory, show.wanted.clone())?;
    let clock = Clock::new(SystemTime::now(), monotonic_ns());
    let _ = writeln!(complaints, "observing; interrupt to end");
    let mut kept = VecDeque::new();
    let (mut shown, mut lost) = (0_u64, 0);
    let mut say = |line: String| match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(ObserveError::Write(error)),
    };
    'observing: while !stop.load(Ordering::Relaxed) {
        observer.wait(WAIT_MAX)?;
        for _ in 0..READ_MAX {
            let Some(told) = observer.next_told() else { break };
            let seen = {
                let names = names.read().unwrap_or_else(std::sync::PoisonError::into_inner);
                Sighting::new(&told, &clock, &names, |number| services.get(number))
            };
            if !show.filter.matches(&seen) {
                continue;
            }
            let line = if show.json { seen.json() } else { seen.line() };
            if let Some(last) = show.last {
                if kept.len() >= last {
                    kept.pop_front();
                }
                kept.push_back(line);
            } else if !say(line)? {
                return Ok(());
            }
            shown += 1;
            if show.count.is_some_and(|count| shown >= count) {
                break 'observing;
            }
        }
        let now = observer.lost()?;
        if now > lost {
            let _ = writeln!(complaints, "{} events lost: they came faster than they were read", now - lost);
            lost = now;
        }
    }
    for line in kept {
        if !say(line)? {
            break;
        }
    }
    Ok(())
}
