//! The error object every failing verb prints.
//!
//! It exists because runtimes act on the code: 11 means try again, anything else means give up on this sandbox.
//! It must not know what went wrong, only how to say it.

use serde_json::{Value, json};

/// Codes: 1–99 are the specification's, 100 and above are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The asked version is not spoken.
    IncompatibleVersion = 1,
    /// The configuration asks for something that is not supported.
    UnsupportedField = 2,
    /// No such container: the runtime need not clean up.
    UnknownContainer = 3,
    /// A CNI_* variable is missing or wrong.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    InputOutput = 5,
    /// The configuration is not JSON.
    Undecodable = 6,
    /// The configuration is JSON and wrong.
    InvalidConfig = 7,
    /// Transient: the runtime should call again.
    TryAgainLater = 11,
    /// STATUS: an ADD could not be served now.
    NotAvailable = 50,
    /// STATUS: the same, and what is there may be cut off.
    Limited = 51,
    /// Every address of the node's range is taken.
    AddressesExhausted = 100,
    /// The agent could not do it.
    AgentFailed = 101,
    /// CHECK found a difference.
    Differs = 102,
}

/// A failure as the specification prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Failure {
    /// What kind.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What may help; may be empty.
    pub details: String,
}

impl Failure {
    /// A failure without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same with details.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The error object, in the version the caller asked for.
    pub fn render(&self, version: &str) -> Value {
        let mut object = json!({ "cniVersion": version, "code": self.code as u32, "msg": self.message });
        if !self.details.is_empty() {
            object["details"] = Value::from(self.details.as_str());
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_object_has_code_msg_and_details() {
        let failure = Failure::new(Code::TryAgainLater, "the agent is away").details("connection refused");
        assert_eq!(
            failure.render("1.0.0"),
            json!({"cniVersion": "1.0.0", "code": 11, "msg": "the agent is away", "details": "connection refused"})
        );
    }
}
