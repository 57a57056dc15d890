//! What the planner writes beside the specification read plainly; and golden tests of images.

mod golden;
mod model;

use std::net::IpAddr;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::{
    Block, Direction, Expression, Image, Labels, NamedPort, Operator, Peer, Planner, Pod, PodName, Policy,
    Port, Ports, Protocol, Rule, Selector,
};
use model::Model;

/// A change of the cluster.
#[derive(Debug, Clone)]
enum Step {
    Policy(PodName, Option<Policy>),
    Namespace(String, Option<Labels>),
    Pod(PodName, Option<Pod>),
    Link(u32, Option<PodName>),
    /// Another agent goes on from the maps.
    Restart,
}

const NAMESPACES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 3] = ["one", "two", "three"];
const LINKS: [u32; 2] = [7, 8];
/// The addresses of pods and of others.
const ADDRESSES: [&str; 6] = ["10.1.0.1", "10.1.0.2", "10.1.1.1", "fd00::1", "192.0.2.1", "2001:db8::1"];
const RANGES: [&str; 7] =
    ["10.1.0.0/24", "10.1.0.2/32", "10.0.0.0/8", "0.0.0.0/0", "192.0.2.0/24", "fd00::/64", "::/0"];
const PORTS: [u16; 4] = [80, 81, 443, 65_535];

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(vec!["x", "y"]), select(vec!["1", "2"]), 0..3)
        .prop_map(|it| it.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn selector() -> impl Strategy<Value = Selector> {
    let operator = select(vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
    let values = vec(select(vec!["1", "2"]), 1..3);
    let expression = (select(vec!["x", "y"]), operator, values).prop_map(|(key, operator, values)| {
        Expression { key: key.into(), operator, values: values.into_iter().map(str::to_owned).collect() }
    });
    (labels(), vec(expression, 0..2)).prop_map(|(labels, expressions)| Selector { labels, expressions })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn peer() -> impl Strategy<Value = Peer> {
    let pods = (prop::option::of(selector()), prop::option::of(selector()))
        .prop_map(|(namespaces, pods)| Peer { namespaces, pods, block: None });
    let block = (select(RANGES.to_vec()), vec(select(RANGES.to_vec()), 0..3)).prop_map(|(cidr, except)| {
        let block = Block {
            cidr: cidr.parse().expect("a range"),
            except: except.iter().map(|it| it.parse().expect("a range")).collect(),
        };
        Peer { namespaces: None, pods: None, block: Some(block) }
    });
    prop_oneof![2 => pods, 1 => block]
}

fn port() -> impl Strategy<Value = Port> {
    let range = (select(PORTS.to_vec()), select(PORTS.to_vec()))
        .prop_map(|(one, other)| Ports::Range(one.min(other), one.max(other)));
    let ports = prop_oneof![
        Just(Ports::All),
        range,
        select(vec!["web", "other"]).prop_map(|name| Ports::Named(name.into())),
    ];
    (protocol(), ports).prop_map(|(protocol, ports)| Port { protocol, ports })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (vec(peer(), 0..3), vec(port(), 0..3)).prop_map(|(peers, ports)| Rule { peers, ports });
    vec(rule, 0..3)
}

fn name() -> impl Strategy<Value = PodName> {
    (select(NAMESPACES.to_vec()), select(NAMES.to_vec()))
        .prop_map(|(namespace, name)| PodName::new(namespace, name))
}

fn pod() -> impl Strategy<Value = Pod> {
    let port = (select(vec!["web", "other"]), protocol(), select(PORTS.to_vec()))
        .prop_map(|(name, protocol, port)| NamedPort { name: name.into(), protocol, port });
    (labels(), vec(port, 0..3)).prop_map(|(labels, ports)| Pod { labels, addresses: Vec::new(), ports })
}

fn step() -> impl Strategy<Value = Step> {
    let policy = (selector(), prop::option::of(rules()), prop::option::of(rules()))
        .prop_map(|(pods, ingress, egress)| Policy { pods, ingress, egress });
    prop_oneof![
        4 => (name(), prop::option::weighted(0.8, policy)).prop_map(|(name, policy)| Step::Policy(name, policy)),
        1 => (select(NAMESPACES.to_vec()), prop::option::weighted(0.9, labels()))
            .prop_map(|(name, labels)| Step::Namespace(name.into(), labels)),
        3 => (name(), prop::option::weighted(0.8, pod())).prop_map(|(name, pod)| {
            // No two pods have one address.
            let at = NAMESPACES.iter().position(|it| *it == name.namespace).unwrap_or_default() * 2
                + usize::from(name.name == "two");
            let addresses = if name.name == "three" { vec![] } else { vec![ADDRESSES[at].parse().expect("one")] };
            Step::Pod(name, pod.map(|pod| Pod { addresses, ..pod }))
        }),
        2 => (select(LINKS.to_vec()), prop::option::weighted(0.9, name())).prop_map(|(link, pod)| Step::Link(link, pod)),
        1 => Just(Step::Restart),
    ]
}

/// Every question that may be asked.
fn questions() -> impl Iterator<Item = (u32, Direction, IpAddr, u8, u16)> {
    let others = [1_u8, 0].map(|protocol| (protocol, 0_u16));
    let ports = [6_u8, 17, 132]
        .into_iter()
        .flat_map(|it| [0, 79].into_iter().chain(PORTS).map(move |port| (it, port)));
    let traffic: Vec<_> = ports.chain(others).collect();
    LINKS.into_iter().flat_map(move |link| {
        let traffic = traffic.clone();
        Direction::ALL.into_iter().flat_map(move |direction| {
            let traffic = traffic.clone();
            ADDRESSES.into_iter().flat_map(move |address| {
                let remote: IpAddr = address.parse().expect("an address");
                traffic
                    .clone()
                    .into_iter()
                    .map(move |(protocol, port)| (link, direction, remote, protocol, port))
            })
        })
    })
}

/// Takes the change in, and looks at the maps after each operation.
fn take(planner: &mut Planner, model: &mut Model, step: Step, maps: &mut Image) -> Result<(), TestCaseError> {
    let before = model.clone();
    match step.clone() {
        Step::Policy(name, policy) => planner.set_policy(name, policy),
        Step::Namespace(name, labels) => planner.set_namespace(name, labels),
        Step::Pod(name, pod) => planner.set_pod(name, pod),
        Step::Link(link, pod) => planner.set_link(link, pod),
        Step::Restart => {
            *planner = Planner::recover(maps.clone());
            model.tell(planner);
        }
    }
    model.take(&step);
    for operation in planner.plan() {
        maps.apply(&operation);
        for (link, direction, remote, protocol, port) in questions() {
            let is = maps.allows(link, direction, remote, protocol, port);
            let may_be = [&before, &*model].map(|it| it.allows(link, direction, remote, protocol, port));
            prop_assert!(
                may_be.contains(&is),
                "after {operation:?} of {step:?}: {link} {direction:?} {remote} {protocol}/{port} is {is}"
            );
        }
    }
    prop_assert_eq!(&*maps, planner.image());
    for (link, direction, remote, protocol, port) in questions() {
        prop_assert_eq!(
            maps.allows(link, direction, remote, protocol, port),
            model.allows(link, direction, remote, protocol, port),
            "after {:?}: {} {:?} {} {}/{}",
            step,
            link,
            direction,
            remote,
            protocol,
            port
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// And in between as it says before or after the change, and never otherwise.
    #[test]
    fn after_any_changes_the_maps_say_what_the_specification_says(steps in vec(step(), 1..24)) {
        let (mut planner, mut model, mut maps) = (Planner::default(), Model::default(), Image::default());
        for step in steps {
            take(&mut planner, &mut model, step, &mut maps)?;
        }
    }
}
