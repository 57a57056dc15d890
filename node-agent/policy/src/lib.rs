//! Network policy: who may talk to which pods of this node, compiled to what the programs look up.
//!
//! A [`Cluster`] is what the API says: policies, namespaces, pods. The programs know peers by numbers: pods that no rule on
//! this node tells apart are one peer, and so are addresses that are in the same blocks of rules. [`Planner`] gives the numbers and
//! orders what is to be written so that at every moment each packet is judged by the policies before or by those after, and never by
//! a mixture. Pure; must not know the API's types nor the kernel's maps.

mod classes;
mod desired;
mod image;
mod planner;
mod rules;
mod selector;

pub use desired::{Block, Labels, NamedPort, Peer, Pod, PodName, Policy, Port, Ports, Protocol, Rule};
pub use image::{Direction, Image, Operation, Table};
pub use planner::{Cluster, Planner};
pub use selector::{Expression, Operator, Selector};

#[cfg(test)]
mod tests;
