//! Endpoints: the addresses behind a Service, in the old single-object form.

use crate::registry::definition::Declaration;
use crate::tables::network::ENDPOINTS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Endpoints", "endpoints").columns(ENDPOINTS).short(&["ep"]).create_on_update()
}
