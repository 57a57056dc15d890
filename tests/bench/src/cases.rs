//! What is measured: one file a kind of measurement, and the list of them.
//!
//! Every case has a name that `--only` picks it by and `--list` prints; rows' names begin with it.

mod api;
mod beside;
mod connect;
mod direct;
mod packets;
mod policies;
mod programming;
mod removal;
mod traffic;

use anyhow::{Result, bail};

use crate::report::Row;
use crate::stage::{Scope, Stage, is_wanted};

/// Cases that are measured together.
struct Group {
    name: &'static str,
    /// The names of its cases.
    cases: fn(&Scope) -> Vec<String>,
    /// Measures those of them that the stage wants.
    run: fn(&Stage) -> Result<Vec<Row>>,
}

/// What there is to measure, in this order.
const GROUPS: &[Group] = &[
    Group { name: "traffic", cases: traffic::cases, run: traffic::run },
    Group { name: "nodeport to another node", cases: direct::cases, run: direct::run },
    Group { name: "packets", cases: packets::cases, run: packets::run },
    Group { name: "policies", cases: policies::cases, run: policies::run },
    Group { name: "connect()", cases: connect::cases, run: connect::run },
    Group { name: "cold start", cases: programming::cold_start_cases, run: programming::cold_start },
    Group { name: "endpoint change", cases: programming::change_cases, run: programming::change },
    Group { name: "removal", cases: removal::cases, run: removal::run },
    Group { name: "memory", cases: api::memory_cases, run: api::memory },
    Group { name: "cold start through the API", cases: api::cold_start_cases, run: api::cold_start },
    Group { name: "endpoint change through the API", cases: api::change_cases, run: api::change },
    Group { name: "endpoint change beside kube-proxy", cases: beside::cases, run: beside::run },
];

/// The names of all cases whose name contains `only`; an error when it picks none.
pub fn select(only: Option<&str>, scope: &Scope) -> Result<Vec<String>> {
    let all: Vec<String> = GROUPS.iter().flat_map(|group| (group.cases)(scope)).collect();
    let picked: Vec<String> = all.iter().filter(|case| is_wanted(only, case)).cloned().collect();
    if let (Some(only), true) = (only, picked.is_empty()) {
        bail!("no case has {only:?} in its name; there are:\n  {}", all.join("\n  "));
    }
    Ok(picked)
}

/// Measures what the stage wants. A group that cannot be measured becomes a row that says why.
pub fn run(stage: &Stage) -> Vec<Row> {
    let mut rows = Vec::new();
    for group in GROUPS {
        if !(group.cases)(&stage.scope).iter().any(|case| stage.wants(case)) {
            continue;
        }
        eprintln!("{}", group.name);
        // On a thread of its own, which a case may bind to a CPU: what it starts would inherit that.
        let done = std::thread::scope(|scope| scope.spawn(|| (group.run)(stage)).join());
        match done.unwrap_or_else(|_| Err(anyhow::anyhow!("the case panicked"))) {
            Ok(measured) => rows.extend(measured),
            Err(error) => rows.push(Row::missing(group.name, "", format!("{error:#}"))),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_picked_by_a_part_and_a_part_of_none_is_refused_with_the_list() {
        let quick = Scope { quick: true, kube_proxy: None };
        assert!(select(None, &quick).expect("all").len() > 20);
        let picked = select(Some("nodeport TCP_CRR: penstock @3"), &quick).expect("one");
        assert_eq!(picked, ["nodeport TCP_CRR: penstock @3"]);
        let refusal = select(Some("nodeprot"), &quick).expect_err("none").to_string();
        assert!(refusal.contains("nodeprot") && refusal.contains("nodeport TCP_CRR"), "{refusal}");
    }

    #[test]
    fn no_two_cases_have_one_name() {
        for quick in [true, false] {
            let scope = Scope { quick, kube_proxy: Some("kube-proxy".into()) };
            let all = select(None, &scope).expect("all");
            let names: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!(names.len(), all.len());
        }
    }
}
