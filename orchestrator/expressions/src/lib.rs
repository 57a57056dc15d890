//! CEL, the language of rules inside Kubernetes objects: sources to programs, programs to values.
//!
//! ```
//! use penstock_expressions::{Budget, Environment, Type, Value, Variables, compile};
//!
//! let environment = Environment::default().variable("object", Type::Dyn);
//! let program = compile("object.spec.replicas <= 5 && has(object.spec.paused)", &environment)?;
//! program.must_give(&[Type::Bool])?;
//!
//! let pod = serde_json::json!({"spec": {"replicas": 3, "paused": true}});
//! let variables = Variables::default().with("object", Value::of(&pod));
//! let result = program.evaluate(&variables, &mut Budget::default())?;
//! assert_eq!(result.as_bool(), Some(true));
//!
//! let wrong = compile("object.spec.replicas < five", &environment).unwrap_err();
//! assert_eq!(wrong.issues[0].message, "undeclared reference to 'five' (in container '')");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program is compiled once and evaluated from any number of threads. Evaluation costs what it does, and ends when
//! its [`Budget`] is spent: one evaluation may spend [`CALL_COST_MAX`], a set that shares a budget [`SET_COST_MAX`].
//! Nothing here panics, whatever the source or the values. A source may be [`SOURCE_BYTES_MAX`] long and its
//! expressions [`DEPTH_MAX`] deep.
//!
//! Values are JSON that is read where it lies, by the schema that is known of it ([`Type`], [`Shape`]). Knows neither
//! kinds nor the registry.

mod ast;
mod budget;
mod check;
mod environment;
mod error;
mod evaluate;
mod lexer;
mod library;
mod parser;
mod program;
mod signatures;
mod types;
mod value;
mod variables;

pub use budget::{Budget, CALL_COST_MAX, SET_COST_MAX};
pub use environment::Environment;
pub use error::{CompileError, EvaluationError, Issue};
pub use library::authorizer::{Access, AccessRequest, Authorize, Decision};
pub use parser::is_identifier;
pub use program::{Program, compile};
pub use signatures::{AUTHORIZER, RESOURCE_CHECK};
pub use types::{Field, Record, Shape, Type, made_type};
pub use value::{Key, List, Map, Object, Opaque, Text, Value};
pub use variables::Variables;

/// The longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 100_000;
/// How deep expressions may be nested, as upstream.
pub const DEPTH_MAX: usize = 250;

/// The type of a JSON patch's operation.
pub(crate) const JSON_PATCH: &str = "JSONPatch";
