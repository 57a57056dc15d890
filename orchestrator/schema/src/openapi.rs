//! OpenAPI v3 component schemas of the types.

use crate::{Map, TypeRef};

/// `components.schemas` of every type reachable from the roots.
pub fn v3_schemas(_roots: &[TypeRef]) -> Map<String, crate::Value> {
    Map::new()
}

/// The component name, such as `io.k8s.api.core.v1.Pod`.
pub fn name_of(ty: &TypeRef) -> String {
    ty.name().to_owned()
}
