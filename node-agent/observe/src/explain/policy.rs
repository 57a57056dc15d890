//! What network policies of this node's pods make of a connection that would begin: of those it may be with.
//!
//! Must not know policies, only what they became: which one it is that allows something is not in the maps.

use std::net::{IpAddr, SocketAddr};

use penstock_ebpf_common::{Reason, Verdict};
use penstock_policy::Direction;

use super::answer::Explaining;
use super::question::Source;
use super::{Asked, drop_for, node_address};

/// Judges a connection that nothing else stops.
pub fn judge(told: &mut Explaining<'_>, asked: Asked<'_>) {
    if !told.is_let_through() || asked.state.policies.tables.is_empty() {
        return;
    }
    let question = asked.question;
    let client = match question.source {
        Source::Pod(address) => Some(address),
        Source::Host => node_address(asked.state, question.address),
        Source::Outside(address) => address,
    };
    let targets = match told.targets() {
        [] => vec![SocketAddr::new(question.address, question.port)],
        backends => backends.to_vec(),
    };
    let allowed = targets.iter().filter(|target| may_reach(told, asked, client, **target)).count();
    if allowed == 0 {
        told.suggest("see `kubectl get networkpolicies` in the namespaces of both pods".to_owned());
        drop_for(told, Reason::Policy);
    }
}

/// Whether both ends allow it, as far as they are here.
fn may_reach(told: &mut Explaining<'_>, asked: Asked<'_>, client: Option<IpAddr>, to: SocketAddr) -> bool {
    let Asked { state, question, .. } = asked;
    let sends = client.map(|it| (it, Direction::Egress, to.ip()));
    let gets = (to.ip(), Direction::Ingress, client.unwrap_or(IpAddr::from([0, 0, 0, 0])));
    for (pod, direction, remote) in sends.into_iter().chain([gets]) {
        let Some(link) = state.pods.get(&pod) else { continue };
        if pod == remote || node_address(state, remote) == Some(remote) {
            continue;
        }
        let Some(table) = state.policies.tables.get(link).filter(|it| it.isolates(direction)) else {
            continue;
        };
        let allows = state.policies.allows(*link, direction, remote, question.protocol, to.port());
        let (way, whom) = match direction {
            Direction::Egress => ("send to", to.to_string()),
            Direction::Ingress => {
                ("get from", client.map_or_else(|| "outside".to_owned(), |it| it.to_string()))
            }
        };
        let may = if allows { "may" } else { "may not" };
        let among = table.ranges.len();
        told.step(
            "policy",
            format!("{pod} {may} {way} {whom}, by {among} ranges of what its policies allow"),
        );
        if !allows {
            return false;
        }
    }
    true
}

/// What a verdict leaves to policies.
pub(super) const fn lets_through(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Translated | Verdict::Passed | Verdict::Masqueraded)
}
