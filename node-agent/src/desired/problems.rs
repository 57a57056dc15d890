//! What is wrong with a Service or its slices, in words its owner can act on. Pure.
//!
//! It exists because what is not served as it was asked for must be told to whoever asked. It must not know how it is
//! told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use penstock_fallback::Trouble;

use super::Services;
use crate::cluster::ObjectName;

/// How many of a kind are named; what is told has to be read.
const NAMED_MAX: usize = 4;

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// One word, for those who filter.
    pub reason: &'static str,
    /// What is wrong with what, what happens, and what to do.
    pub message: String,
}

impl Problem {
    /// An address that leads to another Service.
    pub fn conflict(address: IpAddr, port: u16) -> Self {
        Self {
            reason: "AddressConflict",
            message: format!(
                "not reached by {address} port {port}: another service port has it. Give one of them another address \
                 or port"
            ),
        }
    }

    /// An address that the proxy in user space does not serve.
    pub fn not_served(node: &str, trouble: &Trouble) -> Self {
        Self { reason: "AddressNotServed", message: format!("on node {node} {trouble}") }
    }

    /// A Service that needs more room than there is.
    pub fn no_room(node: &str) -> Self {
        Self {
            reason: "NoRoom",
            message: format!(
                "not served on node {node}, wholly or in part: its maps are full; see its condition ServicesIncomplete"
            ),
        }
    }

    /// A port that cannot be listened on.
    pub fn health_port(port: u16, address: IpAddr, node: &str, error: &std::io::Error) -> Self {
        Self {
            reason: "FailedToStartServiceHealthcheck",
            message: format!(
                "node {node} does not answer health checks on {address} port {port}: {error}. Free the port there, or \
                 give the Service another healthCheckNodePort"
            ),
        }
    }

    /// A health check port that another Service answers.
    pub fn health_port_taken(port: u16, other: &ObjectName) -> Self {
        Self {
            reason: "FailedToStartServiceHealthcheck",
            message: format!(
                "health checks on port {port} are answered for {}/{}: give one of the two another healthCheckNodePort",
                other.namespace, other.name
            ),
        }
    }
}

impl Services {
    /// What is wrong with a Service as it was written, and with its slices.
    pub fn problems(&self, name: &ObjectName) -> BTreeSet<Problem> {
        let mut problems = BTreeSet::new();
        let Some(service) = self.services.get(name).map(|service| service.special()) else { return problems };
        if let Some(Err(error)) = &service.choice {
            let message = format!(
                "annotation penstock.io/load-balancing: {error}; until then the cluster's default is used, which is {}",
                self.choice.name()
            );
            problems.insert(Problem { reason: "BadLoadBalancing", message });
        }
        if let Some(Err(error)) = &service.forwarding {
            let message = format!(
                "annotation penstock.io/forwarding: {error}; until then the cluster's default is used, which is {}",
                self.forwarding.name()
            );
            problems.insert(Problem { reason: "BadForwarding", message });
        }
        for range in service.bad_source_ranges.iter().take(NAMED_MAX) {
            let message = format!(
                "loadBalancerSourceRanges has {range:?}, which is no range and lets nobody in: write CIDRs"
            );
            problems.insert(Problem { reason: "BadSourceRange", message });
        }
        let slices = self.slices.get(name).into_iter().flat_map(|slices| slices.iter());
        let nonsense = slices.flat_map(|(slice, view)| view.nonsense.iter().map(move |it| (&slice.name, it)));
        for (slice, address) in nonsense.take(NAMED_MAX) {
            let message = format!(
                "EndpointSlice {slice} has the endpoint {address:?}, which is left out: write the address of a pod or \
                 host, not a loopback, link-local, multicast or unspecified one"
            );
            problems.insert(Problem { reason: "EndpointIgnored", message });
        }
        problems
    }

    /// The object's identity, for those who tell of it.
    pub fn uid(&self, name: &ObjectName) -> Option<&str> {
        self.services.get(name).map(|service| &*service.uid)
    }
}
