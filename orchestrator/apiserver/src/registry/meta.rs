//! ObjectMeta: names, labels, annotations, owners, finalizers — filled and validated alike for every kind.

/// How `metadata.name` must look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, 253 bytes.
    Subdomain,
    /// RFC 1123 label, 63 bytes.
    Label,
    /// RFC 1035 label: starts with a letter.
    Label1035,
    /// Usable as a path segment: no `/`, no `%`, not `.` or `..`.
    PathSegment,
}
