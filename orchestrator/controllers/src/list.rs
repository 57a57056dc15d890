//! The list of controllers. Adding one is one file and one line here.

use std::future::Future;
use std::pin::Pin;

use crate::context::Context;

type Run = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Name and entry point of every controller.
pub const CONTROLLERS: &[(&str, Run)] = &[
    ("deployment", |c| Box::pin(crate::deployment::run(c))),
    ("replicas", |c| Box::pin(crate::replicas::run(c))),
];
