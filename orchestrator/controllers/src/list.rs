//! The list of controllers. Adding one is one file and one line here.

use std::future::Future;
use std::pin::Pin;

use crate::context::Context;

type Run = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Name and entry point of every controller.
pub const CONTROLLERS: &[(&str, Run)] = &[
    ("deployment", |c| Box::pin(crate::deployment::run(c))),
    ("endpoints", |c| Box::pin(crate::endpoints::run(c))),
    ("node-ipam", |c| Box::pin(crate::node_ipam::run(c))),
    ("replicas", |c| Box::pin(crate::replicas::run(c))),
    ("root-ca", |c| Box::pin(crate::root_ca::run(c))),
    ("service-account", |c| Box::pin(crate::service_account::run(c))),
];
