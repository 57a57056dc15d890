//! ClusterRole: see `rbac` for the rules it keeps.

use super::Role;
use crate::registry::definition::Declaration;
use crate::registry::meta::NameRule;
use crate::tables::cluster::NAME_AND_CREATED;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles")
        .name_rule(NameRule::PathSegment)
        .create_on_update()
        .cluster_scoped()
        .columns(NAME_AND_CREATED)
        .strategy(Role)
}
