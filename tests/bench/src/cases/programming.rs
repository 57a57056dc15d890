//! How long it takes until the kernel has what is desired: all of it when an agent starts, and one change.
//!
//! At the level of the library: the desired state is given, nothing is watched or decoded. The thread that applies runs
//! before ordinary ones, so that what else the machine does is not measured.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use penstock_dataplane::{Dataplane, Desired, Ids, Limits, Listing, MapImage, ServiceChange, compile, diff};
use penstock_tests::netns::Netns;

use crate::fleet::{desired, fleet};
use crate::peer::ours::Base;
use crate::process;
use crate::report::Row;
use crate::rounds::{median, process_cpu_ns, quantile, thread_cpu_ns};
use crate::stage::{Scope, Stage};
use crate::worker;

const COLD_SERVICES: u32 = 50_000;
const COLD_SERVICES_QUICK: u32 = 5_000;
const COLD_BACKENDS: u32 = 5;
const COLD_GOAL_S: f64 = 5.0;
const CHANGE_SERVICES: u32 = 10_000;
const CHANGE_BACKENDS: u32 = 25;
const CHANGES_MAX: usize = 200;
const CHANGES_LIMIT: Duration = Duration::from_secs(60);
const CHANGES_LIMIT_QUICK: Duration = Duration::from_secs(10);
const CHANGE_P99_GOAL_MS: f64 = 10.0;
const CHANGE_CPU_GOAL_MS: f64 = 1.0;

pub fn cold_start_cases(_scope: &Scope) -> Vec<String> {
    vec!["cold start of the library".to_owned()]
}

pub fn change_cases(_scope: &Scope) -> Vec<String> {
    vec!["endpoint change of the library".to_owned()]
}

pub fn cold_start(stage: &Stage) -> Result<Vec<Row>> {
    worker::pin(stage.cpu)?;
    let services = if stage.scope.quick { COLD_SERVICES_QUICK } else { COLD_SERVICES };
    let wanted = desired(&fleet(services, COLD_BACKENDS));
    let (mut loads, mut applies) = (Vec::new(), Vec::new());
    for _ in 0..if stage.scope.quick { 1 } else { 3 } {
        let node = Netns::new()?;
        let base = Base::new(stage, services, None)?;
        let begin = Instant::now();
        let dataplane = node.run(|| base.load())?;
        loads.push(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        apply(&dataplane, &wanted)?;
        applies.push(begin.elapsed().as_secs_f64());
    }
    let both = loads.iter().zip(&applies).map(|(load, apply)| load + apply).collect();
    let endpoints = u64::from(services) * u64::from(COLD_BACKENDS);
    let size = format!("{services} services, {endpoints} endpoints");
    let in_all = Row::of(format!("cold start of the library: {size}, in all"), median(both)?, "s");
    let begin = Instant::now();
    let compiled = compile(&wanted, &Ids::new(&Limits { services_max: services * 2, ..Limits::default() }));
    let compiling = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let operations = diff(&MapImage::default(), &compiled.image).len();
    let comparing = begin.elapsed().as_secs_f64();
    Ok(vec![
        Row::of("cold start of the library: programs and empty maps", median(loads)?, "s"),
        Row::of(format!("cold start of the library: {size}, compiled only"), compiling, "s"),
        Row::of(
            format!("cold start of the library: {size}, compared only ({operations} operations)"),
            comparing,
            "s",
        ),
        Row::of(
            format!("cold start of the library: {size}, compiled, compared and written"),
            median(applies)?,
            "s",
        ),
        if stage.scope.quick { in_all } else { in_all.at_most(COLD_GOAL_S) },
    ])
}

pub fn change(stage: &Stage) -> Result<Vec<Row>> {
    worker::pin(stage.cpu)?;
    let services = CHANGE_SERVICES;
    let limit = if stage.scope.quick { CHANGES_LIMIT_QUICK } else { CHANGES_LIMIT };
    let mut wanted = desired(&fleet(services, CHANGE_BACKENDS));
    let node = Netns::new()?;
    let base = Base::new(stage, services, None)?;
    let dataplane = node.run(|| base.load())?;
    let begin = Instant::now();
    apply(&dataplane, &wanted)?;
    let filling = begin.elapsed().as_secs_f64();
    let facts = wanted.facts();
    let keys: Vec<_> = wanted.services.keys().cloned().collect();
    let (mut took, mut cpu) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for change in 0..CHANGES_MAX {
        if start.elapsed() > limit {
            break;
        }
        let key = &keys[change * 97 % keys.len()];
        let service = wanted.services.get_mut(key).context("a service of the measurement")?;
        let backend = service.backends.first_mut().context("a backend of the measurement")?;
        backend.address = IpAddr::from([12, 0, (change >> 8) as u8, change as u8]);
        let ports = [(key.port.clone(), service.clone())].into();
        let said = ServiceChange { namespace: key.namespace.clone(), name: key.name.clone(), ports };
        // Of the whole process, less the waiting: threads of their own wait for the kernel's answer and act once more.
        let (begin, begin_cpu) = (Instant::now(), process_cpu_ns());
        dataplane.apply_changes(&[said], &facts, Listing::Unfinished).context("telling of a change")?;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
        let waiting = thread_cpu_ns();
        process::wait_until_settled(std::process::id())?;
        let waiting = thread_cpu_ns() - waiting;
        cpu.push((process_cpu_ns() - begin_cpu - waiting) as f64 / 1e6);
    }
    let endpoints = u64::from(services) * u64::from(CHANGE_BACKENDS);
    let size = format!(
        "endpoint change of the library at {services} services, {endpoints} endpoints ({} changes)",
        took.len()
    );
    let p99 = quantile(took.clone(), 0.99).context("no change was made")?;
    Ok(vec![
        Row::of(
            format!(
                "endpoint change of the library: filling {services} services, {endpoints} endpoints before"
            ),
            filling,
            "s",
        ),
        Row::of(format!("{size}: desired to maps, p50"), median(took)?, "ms"),
        Row::of(format!("{size}: desired to maps, p99"), p99, "ms").at_most(CHANGE_P99_GOAL_MS),
        Row::of(format!("{size}: CPU of all threads, p50"), median(cpu)?, "ms").at_most(CHANGE_CPU_GOAL_MS),
    ])
}

fn apply(dataplane: &Dataplane, wanted: &Desired) -> Result<()> {
    dataplane.apply(wanted).context("telling the data plane of its services").map(drop)
}
