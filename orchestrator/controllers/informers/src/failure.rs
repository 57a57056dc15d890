//! What a control loop does with an error: try again soon, wait a stated time, or give up until the object
//! changes. One type for all loops, so that no loop invents its own retry policy.

use std::time::Duration;

/// A failed step of a control loop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something moved underneath (a conflict, a lost connection): again, after the key's backoff.
    #[error("{what}: {source}")]
    Retry {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not now, and there is no point in asking before `after` has passed.
    #[error("{reason}; next try in {after:?}")]
    Wait { reason: String, after: Duration },
    /// The object itself is wrong; nothing to do until someone edits it.
    #[error("{reason}")]
    Terminal { reason: String },
}

impl Failure {
    /// Classifies an API error met while doing `what`.
    pub fn api(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match status_code(&error) {
            // What we sent is not acceptable: trying soon again would not help, and somebody should know.
            Some(422) | Some(400) => {
                tracing::warn!(%what, %error, "the API server refuses a request of ours");
                Self::Wait { reason: format!("{what}: {error}"), after: Duration::from_secs(30) }
            }
            _ => Self::Retry { what, source: Box::new(error) },
        }
    }

    /// A retry with a plain message.
    pub fn again(what: impl Into<String>) -> Self {
        Self::Wait { reason: what.into(), after: Duration::from_millis(500) }
    }
}

/// The HTTP code of an API error; `None` for transport errors.
pub fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Whether the object is not there (any more).
pub fn is_not_found(error: &kube::Error) -> bool {
    status_code(error) == Some(404)
}

/// Whether an object of that name exists already.
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 409 && s.reason == "AlreadyExists")
}

/// Whether the optimistic lock or a precondition failed.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 409 && s.reason != "AlreadyExists")
}

/// Whether the namespace refuses content because it is being deleted.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 403 && s.message.contains("being terminated"))
}

/// Short form for `map_err`.
pub trait During<T> {
    /// Wraps an API error with what was being done.
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure::api(what(), e))
    }
}

/// Turns "not there" into `None`: the wanted end of every deletion.
pub fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_not_found(&e) => Ok(None),
        Err(e) => Err(e),
    }
}
