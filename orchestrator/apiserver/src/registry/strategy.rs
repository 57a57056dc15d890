//! What differs between kinds inside the one generic CRUD.
//!
//! The generic code does names, versions, finalizers, status isolation and storing; a strategy only prepares and
//! validates. All methods but `reserve` are pure.

use async_trait::async_trait;
use serde_json::Value;

use super::Registry;
use super::context::Context;
use crate::error::{ApiError, FieldError};

/// How a delete of one object proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// Removed as soon as no finalizer is left.
    None,
    /// Stays, marked, until its agent deletes it with grace 0.
    Seconds(i64),
}

/// Something taken for the time of one write (addresses, ports). Dropped before `commit`: rolled back.
#[async_trait]
pub trait Reservation: Send {
    /// The object is stored: keep what it uses, release what its old form used.
    async fn commit(self: Box<Self>, registry: &Registry);
    /// The write failed or was a dry run: give everything back.
    async fn cancel(self: Box<Self>, registry: &Registry);
}

/// Per-kind behaviour. The defaults suit a kind with `spec` and `status` and no rules of its own.
#[async_trait]
pub trait Strategy: Send + Sync + 'static {
    /// Clears or fills fields a creator does not own.
    fn prepare_create(&self, _context: &Context, _new: &mut Value) {}

    /// Fills what follows from the rest of a new object, when admission has changed what it changes.
    fn complete_create(&self, _new: &mut Value) {}

    /// Restores fields an updater may not touch.
    fn prepare_update(&self, _context: &Context, _new: &mut Value, _old: &Value) {}

    /// As `prepare_update`, for `/status`; `spec` and most metadata have been restored already.
    fn prepare_status(&self, _context: &Context, _new: &mut Value, _old: &Value) {}

    fn validate(&self, _new: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What only a new object must keep, besides `validate`.
    fn validate_create(&self, _new: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Called with the result of `validate(new)` already collected by the generic code.
    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Whether updates run `validate(new)` in full as well (they do, except where upstream cannot).
    fn revalidates(&self) -> bool {
        true
    }

    fn validate_status(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Graceful deletion: how long `object` may take to go, given what the caller asked for.
    fn grace(&self, _object: &Value, _asked: Option<i64>) -> Grace {
        Grace::None
    }

    /// Marks an object whose deletion has begun (a namespace's phase).
    fn mark_deleting(&self, _object: &mut Value) {}

    /// Something other than `metadata.finalizers` still holds the object (a namespace's `spec.finalizers`).
    fn holds(&self, _object: &Value) -> bool {
        false
    }

    /// Takes addresses and ports for `new`; `old` is `None` on create. May fill fields of `new`.
    async fn reserve(
        &self,
        _registry: &Registry,
        _context: &Context,
        _new: &mut Value,
        _old: Option<&Value>,
    ) -> Result<Option<Box<dyn Reservation>>, ApiError> {
        Ok(None)
    }

    /// After the object left the store.
    async fn after_delete(&self, _registry: &Registry, _old: &Value) {}
}

/// A kind without rules of its own.
pub struct Plain;

impl Strategy for Plain {}
