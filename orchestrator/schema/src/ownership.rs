//! Who owns which field of an object: the sets of fields behind `metadata.managedFields`, and server-side apply.
//!
//! [`element`] and [`set`] are paths and sets of them, [`fields_v1`] is their form on the wire. [`shape`] reads from a
//! type how the parts of a value belong together; [`walk`] lists, compares and checks values by it, [`combine`] merges
//! and removes. [`claims`] is the algebra of owners: what an update takes, what an apply may take. [`managers`] is the
//! list of owners as the object carries it. All of it is pure: the time comes from the caller, other versions of an
//! object through [`claims::Versions`]. Semantics: <https://kubernetes.io/docs/reference/using-api/server-side-apply/>.

pub mod claims;
pub mod combine;
pub mod element;
mod fields_v1;
pub mod managers;
pub mod set;
mod shape;
pub mod walk;

#[cfg(test)]
mod tests;

pub use claims::{Claim, Filter, Managed, Versions};
pub use element::{Element, Literal};
pub use fields_v1::FieldsError;
pub use managers::{Manager, Operation};
pub use set::Set;
