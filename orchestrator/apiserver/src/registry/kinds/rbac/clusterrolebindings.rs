//! ClusterRoleBinding: see `rbac` for the rules it keeps.

use super::Binding;
use crate::registry::definition::Declaration;
use crate::registry::meta::NameRule;
use crate::tables::cluster::BINDINGS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings")
        .name_rule(NameRule::PathSegment)
        .create_on_update()
        .cluster_scoped()
        .columns(BINDINGS)
        .strategy(Binding)
}
