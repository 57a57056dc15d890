//! LimitRange: bounds and defaults for what containers of a namespace ask for.

use crate::registry::definition::Declaration;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "LimitRange", "limitranges").short(&["limits"]).create_on_update()
}
