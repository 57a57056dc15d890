//! A `kube::Client` inside the API server's process.
//!
//! Controllers, the scheduler and the cloud loops use the API like everyone else; here their transport is a function
//! call. The user travels as a request extension that nothing outside the process can set.

use axum::body::Body;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use tower::{BoxError, service_fn};

use crate::registry::User;
use crate::server::ApiServer;

/// Marks a request that came from inside the process.
#[derive(Debug, Clone)]
pub(crate) struct InProcess {
    pub user: User,
}

/// A client that acts as `user`.
pub(crate) fn in_process(server: ApiServer, user: User) -> kube::Client {
    // Fields are owned under the name of a user agent; that of a component is its user's.
    let agent = HeaderValue::from_str(user.name.rsplit(':').next().unwrap_or_default()).ok();
    let service = service_fn(move |request: Request<kube::client::Body>| {
        let server = server.clone();
        let mut request = request.map(Body::new);
        if let Some(agent) = &agent {
            request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
        }
        request.extensions_mut().insert(InProcess { user: user.clone() });
        async move { Ok::<Response<Body>, BoxError>(server.handle(request).await) }
    });
    kube::Client::new(service, "default")
}
