//! Bootstrap tokens: by which a machine that joins proves itself to the cluster, and the cluster to it.
//!
//! A token is `ID.SECRET`. It lies in a Secret of `kube-system`, whose keys and names are upstream's
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>). Pure but for making one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey};
use rand::Rng;
use serde_json::json;

use crate::TokenError;

/// Where such Secrets lie.
pub const NAMESPACE: &str = "kube-system";
/// Their type.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Their names, before the token's id.
pub const NAME_PREFIX: &str = "bootstrap-token-";
/// The name of whoever bears one, before its id.
pub const USER_PREFIX: &str = "system:bootstrap:";
/// Everybody's who bears one.
pub const GROUP: &str = "system:bootstrappers";

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const EXTRA_GROUP_PREFIX: &str = "system:bootstrappers:";
const EXTRA_GROUP_LENGTH_MAX: usize = 256;

/// The keys of a Secret's data.
pub mod keys {
    pub const ID: &str = "token-id";
    pub const SECRET: &str = "token-secret";
    pub const EXPIRATION: &str = "expiration";
    pub const DESCRIPTION: &str = "description";
    pub const GROUPS: &str = "auth-extra-groups";
    pub const AUTHENTICATION: &str = "usage-bootstrap-authentication";
    pub const SIGNING: &str = "usage-bootstrap-signing";
}

/// A token. No log shows its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

/// What a Secret says of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredToken {
    pub id: String,
    pub secret: String,
    /// When it ends, as it is written; empty: never.
    pub expiration: String,
    pub description: String,
    /// Further groups, separated by commas.
    pub extra_groups: String,
    pub is_for_authentication: bool,
    pub is_for_signing: bool,
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Never,
    At(Timestamp),
    /// What is written is no time: such a token is over.
    Unreadable,
}

/// A group that a token cannot put anybody in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no group of bootstrap tokens: they begin with {EXTRA_GROUP_PREFIX}, and go on with a-z, 0-9, : and -"
)]
pub struct BadGroup {
    pub name: String,
}

// === impl BootstrapToken ===

impl BootstrapToken {
    /// The token of a text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        let fits = |part: &str, length| part.len() == length && part.bytes().all(|it| LETTERS.contains(&it));
        (fits(id, ID_LENGTH) && fits(secret, SECRET_LENGTH))
            .then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// A new one. Its secret has some 82 bits.
    pub fn random() -> Self {
        let mut random = rand::rng();
        let mut letters = |count: usize| -> String {
            (0..count).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
        };
        Self { id: letters(ID_LENGTH), secret: letters(SECRET_LENGTH) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The name of its Secret.
    pub fn secret_name(&self) -> String {
        format!("{NAME_PREFIX}{}", self.id)
    }

    /// The whole token, for whoever is to have it.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootstrapToken({}..)", self.id)
    }
}

// === impl StoredToken ===

impl StoredToken {
    /// Reads a Secret's data.
    pub fn read(data: impl Fn(&str) -> Option<String>) -> Self {
        let text = |key: &str| data(key).unwrap_or_default();
        let is_true = |key: &str| data(key).as_deref() == Some("true");
        Self {
            id: text(keys::ID),
            secret: text(keys::SECRET),
            expiration: text(keys::EXPIRATION),
            description: text(keys::DESCRIPTION),
            extra_groups: text(keys::GROUPS),
            is_for_authentication: is_true(keys::AUTHENTICATION),
            is_for_signing: is_true(keys::SIGNING),
        }
    }

    /// Whether the Secret of that name is this token's.
    pub fn is_named(&self, name: &str) -> bool {
        self.id.len() == ID_LENGTH && name.strip_prefix(NAME_PREFIX) == Some(&self.id)
    }

    pub fn ends(&self) -> Ends {
        match self.expiration.as_str() {
            "" => Ends::Never,
            text => text.parse().map_or(Ends::Unreadable, Ends::At),
        }
    }

    pub fn has_ended(&self, now: Timestamp) -> bool {
        match self.ends() {
            Ends::Never => false,
            Ends::At(end) => end <= now,
            Ends::Unreadable => true,
        }
    }

    /// The groups of whoever bears it, sorted.
    pub fn groups(&self) -> Result<Vec<String>, BadGroup> {
        let mut groups = vec![GROUP.to_owned()];
        for name in self.extra_groups.split(',').filter(|_| !self.extra_groups.is_empty()) {
            if !is_extra_group(name) {
                return Err(BadGroup { name: name.to_owned() });
            }
            groups.push(name.to_owned());
        }
        groups.sort();
        groups.dedup();
        Ok(groups)
    }
}

/// `system:bootstrappers:` and something that does not end in `:` or `-`.
fn is_extra_group(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(EXTRA_GROUP_PREFIX) else { return false };
    let known = |it: u8| LETTERS.contains(&it) || it == b':' || it == b'-';
    (1..=EXTRA_GROUP_LENGTH_MAX).contains(&rest.len())
        && rest.bytes().all(known)
        && rest.bytes().last().is_some_and(|it| LETTERS.contains(&it))
}

/// Signs a text with a token: a JWS (RFC 7515) without the text itself (its appendix F), HS256.
///
/// # Errors
/// When the key cannot be used.
pub fn sign_detached(content: &str, id: &str, secret: &str) -> Result<String, TokenError> {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256)
        .map_err(|source| TokenError::Sign { source })?;
    Ok(format!("{header}..{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_six_and_sixteen_small_letters_and_digits() {
        let token = BootstrapToken::parse("abcdef.0123456789abcdef").unwrap();
        assert_eq!((token.id(), token.secret_name().as_str()), ("abcdef", "bootstrap-token-abcdef"));
        assert!(!format!("{token:?}").contains(token.secret()), "{token:?}");
        for wrong in
            ["", "abcdef", "abcde.0123456789abcdef", "abcdef.0123456789abcde", "Abcdef.0123456789abcdef"]
        {
            assert_eq!(BootstrapToken::parse(wrong), None, "{wrong}");
        }
        assert_eq!(BootstrapToken::parse("abcdef.0123456789abcdef."), None);
        let one = BootstrapToken::random();
        assert_eq!(BootstrapToken::parse(&one.reveal()), Some(one.clone()));
        assert_ne!(BootstrapToken::random(), one);
    }

    fn stored(expiration: &str, groups: &str) -> StoredToken {
        StoredToken::read(|key| match key {
            keys::ID => Some("abcdef".to_owned()),
            keys::EXPIRATION => Some(expiration.to_owned()),
            keys::GROUPS => Some(groups.to_owned()),
            keys::SIGNING => Some("true".to_owned()),
            keys::AUTHENTICATION => Some("yes".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn a_token_ends_when_it_says_and_when_nobody_can_read_what_it_says() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (expiration, over) in [
            ("", false),
            ("2026-01-01T00:00:01Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2026-01-01T01:00:01+01:00", false),
            ("tomorrow", true),
        ] {
            assert_eq!(stored(expiration, "").has_ended(now), over, "{expiration}");
        }
        let token = stored("", "");
        assert!(token.is_for_signing && !token.is_for_authentication, "only the word true is yes");
        assert!(token.is_named("bootstrap-token-abcdef") && !token.is_named("bootstrap-token-abcdeg"));
    }

    #[test]
    fn groups_are_those_of_bootstrappers_and_no_others() {
        assert_eq!(stored("", "").groups().unwrap(), [GROUP]);
        let more = stored("", "system:bootstrappers:b:c-d,system:bootstrappers:a,system:bootstrappers:a");
        assert_eq!(more.groups().unwrap(), [GROUP, "system:bootstrappers:a", "system:bootstrappers:b:c-d"]);
        for wrong in [
            "system:masters",
            "system:bootstrappers:",
            "system:bootstrappers:a-",
            "a,",
            "system:bootstrappers:A",
        ] {
            assert!(stored("", wrong).groups().is_err(), "{wrong}");
        }
    }

    /// The value that upstream's own test expects (cluster-bootstrap, `token/jws`).
    #[test]
    fn a_detached_signature_is_what_other_implementations_make_of_it() {
        let content = "Hello from the other side. I must have called a thousand times.";
        assert_eq!(
            sign_detached(content, "joshua", "my voice is my passcode").unwrap(),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }
}
