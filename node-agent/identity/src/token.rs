//! A bootstrap token as the machine that joins has it: what proves each side to the other.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// `ID.SECRET`. No log shows its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
}

// === impl JoinToken ===

impl JoinToken {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole token, which is sent to nobody but the API server that has proved itself.
    pub(crate) fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// Whether a signature without its text (RFC 7515, appendix F; HS256) is this token's of that text.
    pub(crate) fn has_signed(&self, content: &str, signature: &str) -> bool {
        let Some((header, bytes)) = signature.split_once("..") else { return false };
        let decoded = URL_SAFE_NO_PAD.decode(header).ok();
        let header_value: Option<Value> = decoded.and_then(|it| serde_json::from_slice(&it).ok());
        if !header_value.is_some_and(|it| it["alg"] == "HS256" && it["kid"] == *self.id) {
            return false;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(bytes) else { return false };
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        hmac::verify(&key, signed.as_bytes(), &bytes).is_ok()
    }
}

impl FromStr for JoinToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letters = |part: &str| part.bytes().all(|it| it.is_ascii_digit() || it.is_ascii_lowercase());
        match text.trim().split_once('.') {
            Some((id, secret))
                if id.len() == ID_LENGTH
                    && secret.len() == SECRET_LENGTH
                    && letters(id)
                    && letters(secret) =>
            {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(format!(
                "a token is {ID_LENGTH} small letters or digits, a dot, and {SECRET_LENGTH} more; `orchestrator token create` makes one"
            )),
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}..)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &str = "Hello from the other side. I must have called a thousand times.";
    /// As upstream's own test has it (cluster-bootstrap, `token/jws`).
    const SIGNED: &str =
        "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";

    #[test]
    fn a_signature_holds_for_its_text_its_token_and_nothing_else() {
        let token = |id: &str, secret: &str| JoinToken { id: id.to_owned(), secret: secret.to_owned() };
        let joshua = token("joshua", "my voice is my passcode");
        assert!(joshua.has_signed(CONTENT, SIGNED));
        assert!(!joshua.has_signed("Hello", SIGNED));
        assert!(!token("joshua", "another").has_signed(CONTENT, SIGNED));
        assert!(!token("joshub", "my voice is my passcode").has_signed(CONTENT, SIGNED));
        for wrong in ["", "..", &SIGNED.replace("..", "."), &SIGNED[..SIGNED.len() - 4]] {
            assert!(!joshua.has_signed(CONTENT, wrong), "{wrong}");
        }
        // Nobody gets around the secret by naming another way to sign.
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"joshua"}"#);
        assert!(!joshua.has_signed(CONTENT, &format!("{none}..")));
    }

    #[test]
    fn a_token_is_read_from_a_line_and_its_secret_is_not_shown() {
        let token: JoinToken = "abcdef.0123456789abcdef\n".parse().unwrap();
        assert_eq!((token.id(), token.reveal().as_str()), ("abcdef", "abcdef.0123456789abcdef"));
        assert_eq!(format!("{token:?}"), "JoinToken(abcdef..)");
        for wrong in ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde_"] {
            assert!(wrong.parse::<JoinToken>().unwrap_err().contains("orchestrator token create"), "{wrong}");
        }
    }
}
