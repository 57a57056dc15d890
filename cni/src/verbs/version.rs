//! VERSION: which versions of the specification are spoken.
//!
//! It must not need the agent, nor a valid configuration: tools call it to find out how to write one.

use serde_json::{Value, json};

use crate::spec::{Failure, SUPPORTED, Version};

pub(super) fn run(config: &[u8]) -> Result<Value, Failure> {
    // The answer is written in the caller's version when that is one we speak.
    let asked = serde_json::from_slice::<Value>(config).ok();
    let asked = asked.as_ref().and_then(|value| value.get("cniVersion")?.as_str());
    let version = asked.and_then(|text| Version::parse(text).ok()).unwrap_or(Version::newest());
    Ok(json!({ "cniVersion": version.as_str(), "supportedVersions": SUPPORTED }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_without_a_configuration() {
        let answer = run(b"").unwrap();
        assert_eq!(answer["cniVersion"], "1.1.0");
        assert_eq!(answer["supportedVersions"][4], "1.1.0");
        assert_eq!(run(br#"{"cniVersion":"0.4.0"}"#).unwrap()["cniVersion"], "0.4.0");
    }
}
