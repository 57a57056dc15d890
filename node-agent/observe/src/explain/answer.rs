//! The answer, as it grows: a line a step, a verdict, and what to do about it.

use std::net::{IpAddr, SocketAddr};

use penstock_dataplane::Snapshot;
use penstock_ebpf_common::{
    Backend, Reason, VIP_DIRECT, VIP_HOST_ONLY, VIP_NODE_PORT, VIP_SOURCE_RANGES, Verdict, VipKey, VipValue,
};
use serde::Serialize;

use super::policy;
use super::question::{Question, Source};
use crate::sighting::protocol_name;

/// What would become of a connection, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// From whom.
    pub source: String,
    /// To whom.
    pub destination: String,
    /// By which protocol.
    pub protocol: String,
    /// `namespace/name:port` of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What is looked at, in order.
    pub steps: Vec<Step>,
    /// What becomes of it, as `observe` calls it.
    pub verdict: &'static str,
    /// Why it is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// To whom it may go.
    pub backends: Vec<SocketAddr>,
    /// The backend that a new connection of this client is held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Kept>,
    /// This client's connections that are there, or the one that was asked for.
    pub established: Vec<Established>,
    /// What to look at, or to do.
    pub suggestions: Vec<String>,
}

/// A backend that a client keeps for its next connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Which.
    pub backend: SocketAddr,
    /// For how long, should the client not come again.
    pub seconds_left: u64,
}

/// Connections that keep their backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Established {
    /// Which.
    pub backend: SocketAddr,
    /// How many.
    pub connections: usize,
}

/// One thing that is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    pub what: &'static str,
    /// What came of it.
    pub outcome: String,
}

/// Where a packet is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The link of a pod.
    Pod,
    /// The uplink.
    Uplink,
}

/// An explanation in the making.
pub(super) struct Explaining<'a> {
    state: &'a Snapshot,
    told: Explanation,
}

impl<'a> Explaining<'a> {
    pub fn new(state: &'a Snapshot, question: &Question) -> Self {
        let at = |address: IpAddr| match question.source_port {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        let source = match question.source {
            Source::Host => "host".to_owned(),
            Source::Pod(address) => format!("pod {}", at(address)),
            Source::Outside(Some(address)) => format!("{} outside", at(address)),
            Source::Outside(None) => "outside".to_owned(),
        };
        let told = Explanation {
            source,
            destination: question.end(),
            protocol: protocol_name(question.protocol),
            service: None,
            steps: Vec::new(),
            verdict: Verdict::Passed.name(),
            reason: None,
            backends: Vec::new(),
            affinity: None,
            established: Vec::new(),
            suggestions: Vec::new(),
        };
        Self { state, told }
    }

    pub fn step(&mut self, what: &'static str, outcome: impl Into<String>) {
        self.told.steps.push(Step { what, outcome: outcome.into() });
    }

    pub fn suggest(&mut self, what: String) {
        self.told.suggestions.push(what);
    }

    /// Notes which Service an address leads to.
    pub fn service(&mut self, vip: &VipValue, key: &VipKey) {
        let name = self.state.image.names.get(&vip.service);
        let name = name.map_or_else(|| format!("#{}", vip.service), |name| name.to_string());
        let mut kind = Vec::new();
        for (flag, word) in [
            (VIP_NODE_PORT, "a NodePort"),
            (VIP_HOST_ONLY, "for the node's own processes"),
            (VIP_SOURCE_RANGES, "for clients it names"),
            (VIP_DIRECT, "answered by the backend's node (DSR)"),
        ] {
            if vip.flags & flag != 0 {
                kind.push(word);
            }
        }
        let at = SocketAddr::new(key.address.into(), u16::from_be(key.port));
        let kind = if kind.is_empty() { String::new() } else { format!(", {}", kind.join(", ")) };
        self.step("service", format!("{at}/{} is {name}{kind}", protocol_name(key.protocol)));
        self.told.service = Some(name);
    }

    pub fn service_name(&self) -> Option<&str> {
        let name = self.told.service.as_deref()?;
        name.rsplit_once(':').map_or(name, |it| it.0).split_once('/').map(|it| it.1)
    }

    /// Notes who may get it; `client` is the pod that asks.
    pub fn backends(&mut self, backends: &[Backend], client: Option<IpAddr>) {
        for backend in backends {
            let at = SocketAddr::new(backend.address.into(), u16::from_be(backend.port));
            let place = if backend.local == 1 { "on this node" } else { "on another node" };
            let itself = if client == Some(at.ip()) { "; the client itself" } else { "" };
            self.step("backend", format!("{at}, {place}{itself}"));
            self.told.backends.push(at);
        }
    }

    /// Notes the backend that the client is held to.
    pub fn kept(&mut self, backend: SocketAddr, seconds_left: u64) {
        self.step("affinity", format!("this client is held to {backend} for another {seconds_left} s"));
        self.told.affinity = Some(Kept { backend, seconds_left });
    }

    /// Notes connections that are there.
    pub fn established(&mut self, backend: SocketAddr, connections: usize, which: &str) {
        self.step("established", format!("{which} with {backend}, which an established connection keeps"));
        self.told.established.push(Established { backend, connections });
    }

    pub fn end(&mut self, verdict: Verdict, reason: Option<Reason>) {
        self.told.verdict = verdict.name();
        self.told.reason = reason.map(Reason::name);
    }

    /// Whether nothing stops it so far.
    pub fn is_let_through(&self) -> bool {
        Verdict::ALL.iter().any(|it| policy::lets_through(*it) && it.name() == self.told.verdict)
    }

    /// Who may get it.
    pub fn targets(&self) -> &[SocketAddr] {
        &self.told.backends
    }

    pub fn done(self) -> Explanation {
        self.told
    }
}

impl Question {
    /// The address and port asked for.
    pub fn end(&self) -> String {
        SocketAddr::new(self.address, self.port).to_string()
    }
}

impl Explanation {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{} -> {} {}\n", self.source, self.destination, self.protocol);
        for step in &self.steps {
            text.push_str(&format!("  {:<15} {}\n", step.what, step.outcome));
        }
        text.push_str(&format!("verdict: {}", self.verdict));
        if let Some(reason) = self.reason {
            text.push_str(&format!(" ({reason})"));
        }
        text.push('\n');
        for suggestion in &self.suggestions {
            text.push_str(&format!("  hint: {suggestion}\n"));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        // Strings and lists of them: nothing that JSON cannot hold.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
