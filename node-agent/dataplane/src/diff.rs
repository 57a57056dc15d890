//! From one image to another, in an order in which no packet meets a number that leads nowhere.
//!
//! What is pointed at comes before what points: names, then sets, then addresses. What goes, goes the other way round.
//! A set that changes is replaced as a whole by one operation.

use penstock_ebpf_common::{VipKey, VipValue};

use crate::image::{MapImage, Set, service_of};

/// One change of one map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Names a service number; its counters start anew.
    PutName(u32, String),
    /// Makes or replaces a set.
    PutSet(u32, Set),
    /// Makes an address lead somewhere.
    PutVip(VipKey, VipValue),
    /// Makes an address lead nowhere.
    DeleteVip(VipKey),
    /// Removes a set nothing leads to.
    DeleteSet(u32),
    /// Frees a service number.
    DeleteName(u32),
}

impl Operation {
    /// The service whose backends it changes.
    pub fn changed_service(&self) -> Option<u32> {
        match self {
            Self::PutSet(id, _) | Self::DeleteSet(id) => Some(service_of(*id)),
            _ => None,
        }
    }
}

/// The operations that turn `from` into `to`.
pub fn diff(from: &MapImage, to: &MapImage) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (number, name) in &to.names {
        if from.names.get(number) != Some(name) {
            operations.push(Operation::PutName(*number, name.clone()));
        }
    }
    for (id, set) in &to.sets {
        if from.sets.get(id) != Some(set) {
            operations.push(Operation::PutSet(*id, set.clone()));
        }
    }
    for (key, value) in &to.vips {
        if from.vips.get(key) != Some(value) {
            operations.push(Operation::PutVip(*key, *value));
        }
    }
    operations.extend(
        from.vips.keys().filter(|key| !to.vips.contains_key(key)).map(|key| Operation::DeleteVip(*key)),
    );
    operations
        .extend(from.sets.keys().filter(|id| !to.sets.contains_key(id)).map(|id| Operation::DeleteSet(*id)));
    operations.extend(
        from.names.keys().filter(|it| !to.names.contains_key(it)).map(|it| Operation::DeleteName(*it)),
    );
    operations
}

#[cfg(test)]
mod tests;
