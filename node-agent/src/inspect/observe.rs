//! `observe`: the command line's words as what the programs are to tell and what of it is shown.
//!
//! It exists to end well: an interrupt shows what was kept and frees the observer's place. Must not know how anything is
//! told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_dataplane::{Verdict, Wanted};
use penstock_observe::{Filter, Show};
use tokio::signal::unix::{SignalKind, signal};

use super::{known, pins};
use crate::options::Observe;

/// Runs until interrupted, or until there is what was asked for.
pub fn observe(options: &Observe) -> anyhow::Result<()> {
    let show = show(options);
    show.filter.check()?;
    let directory = pins(&options.inspect)?;
    // Several crates bring TLS; the process decides once which cryptography they share.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let names = known::follow(&options.known)?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_when_told(stop.clone(), options.seconds)?;
    penstock_observe::observe(&directory, &show, &names, &stop, &mut io::stdout(), &mut io::stderr())?;
    Ok(())
}

fn show(options: &Observe) -> Show {
    let sample = options.sample.unwrap_or(u32::from(options.all));
    let verdicts = if !options.reason.is_empty() {
        vec![Verdict::Dropped]
    } else if !options.verdict.is_empty() {
        options.verdict.clone()
    } else {
        let all = Verdict::ALL.iter().copied();
        all.filter(|verdict| *verdict != Verdict::Passed || sample != 0).collect()
    };
    Show {
        wanted: Wanted { verdicts, sample },
        filter: Filter {
            pods: options.pod.clone(),
            services: options.service.clone(),
            namespaces: options.namespace.clone(),
            addresses: options.ip.clone(),
            ports: options.port.clone(),
            protocols: options.protocol.clone(),
            reasons: options.reason.clone(),
            from: options.from.clone(),
            to: options.to.clone(),
        },
        json: options.inspect.json,
        last: options.last,
        count: options.count,
    }
}

/// Has `stop` be true after a signal, or after some seconds.
fn stop_when_told(stop: Arc<AtomicBool>, seconds: Option<u64>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let over = async {
                match seconds {
                    Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = over => {}
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    fn asked(words: &[&str]) -> Show {
        let line = [&["node-agent", "observe"], words].concat();
        match Options::try_parse_from(line).expect("a command line").command {
            Command::Observe(options) => show(&options),
            _ => panic!(),
        }
    }

    #[test]
    fn what_is_nothing_of_ours_is_shown_only_when_asked_for() {
        assert!(!asked(&[]).wanted.verdicts.contains(&Verdict::Passed));
        assert_eq!(asked(&["--all"]).wanted.sample, 1);
        assert!(asked(&["--sample=100"]).wanted.verdicts.contains(&Verdict::Passed));
        assert_eq!(asked(&["--verdict=passed"]).wanted.verdicts, [Verdict::Passed]);
        assert_eq!(asked(&["--reason=no_route"]).wanted.verdicts, [Verdict::Dropped]);
    }

    #[test]
    fn a_verdict_that_is_none_is_refused_with_those_there_are() {
        let error =
            Options::try_parse_from(["node-agent", "observe", "--verdict=lost"]).unwrap_err().to_string();
        assert!(error.contains("masqueraded"), "{error}");
    }
}
