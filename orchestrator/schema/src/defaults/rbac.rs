//! API groups of subjects and role references.

use super::{Hook, Object, fill_zero, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.rbac.v1.RoleRef", |o| fill_zero(o, "apiGroup", GROUP)),
    ("io.k8s.api.rbac.v1.Subject", subject),
];

fn subject(subject: &mut Object) {
    // Service accounts are of the core group, which is the empty string.
    if matches!(text(subject, "kind"), "User" | "Group") {
        fill_zero(subject, "apiGroup", GROUP);
    }
}
