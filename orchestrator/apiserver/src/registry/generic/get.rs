//! One object, consistently: after all writes acknowledged before the request.

use std::sync::Arc;

use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::context::{Context, Target};
use crate::registry::definition::Definition;
use crate::registry::object::CachedObject;
use crate::registry::subresource;

impl Registry {
    /// One object, or the virtual object of a subresource (`scale`, `status`).
    pub async fn get(
        &self,
        _context: &Context,
        definition: &Definition,
        target: &Target,
    ) -> Result<Arc<CachedObject>, ApiError> {
        let cell = self.cell(definition)?;
        cell.cache.wait_until_current().await.map_err(super::cache_error)?;
        let key = cell.key(target.namespace(), target.name());
        let item = cell.cache.get(&key).await.map_err(super::cache_error)?;
        let missing = || ApiError::not_found(&definition.group, &definition.plural, target.name());
        let object = self.present(definition, &item.ok_or_else(missing)?.value).await?;
        match target.subresource.as_deref() {
            Some("scale") => subresource::scale::of(self, definition, &object.value()),
            _ => Ok(object),
        }
    }
}
