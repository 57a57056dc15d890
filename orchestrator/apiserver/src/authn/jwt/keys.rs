//! The keys an issuer signs with: found by its discovery document, kept, and read again when a token names another.
//!
//! Reading is asked for by whoever shows a token, so it is bounded: one at a time, [`READINGS_MAX`] at once and then one
//! each [`REFRESH_INTERVAL`]. What was read before stays good while the issuer cannot be reached.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::outbound::exchange::read;
use crate::outbound::{CallError, Target};
use crate::registry::Registry;

/// How many readings may follow each other at once, and how long it takes until one more may.
const READINGS_MAX: u32 = 4;
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Keys of this age are read again when a token comes, so that an issuer can take one back.
const AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long an issuer may take for one document (upstream's).
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// More keys of one issuer are not looked at.
const KEYS_MAX: usize = 256;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why there are no keys.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeysError {
    #[error("{url}: {why}")]
    Fetch { url: String, why: String },
    #[error("{url} says its issuer is {said:?}, not {issuer:?}")]
    Issuer { url: String, said: String, issuer: String },
    #[error("{url} names no jwks_uri that begins with https://")]
    NoKeySet { url: String },
    #[error("{url} holds no key that can be used")]
    NoKeys { url: String },
    #[error("the issuer was asked too often for its keys; it is asked again in {}s", REFRESH_INTERVAL.as_secs())]
    TooSoon,
}

/// A public key, and the name tokens have for it.
struct Key {
    id: Option<String>,
    decoding: DecodingKey,
}

/// What was read.
pub struct KeySet {
    keys: Vec<Key>,
    read: Instant,
}

/// The keys of one issuer.
pub struct Keys {
    registry: Arc<Registry>,
    issuer: String,
    discovery_url: String,
    authorities: Arc<[u8]>,
    now: RwLock<Option<Arc<KeySet>>>,
    /// Held while the issuer is asked.
    allowance: Mutex<Allowance>,
}

/// How often the issuer may still be asked.
struct Allowance {
    left: u32,
    counted: Instant,
}

// === impl Allowance ===

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let more = now.duration_since(self.counted).as_secs() / REFRESH_INTERVAL.as_secs();
        if more > 0 {
            self.left = READINGS_MAX.min(self.left.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
            self.counted = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

// === impl KeySet ===

impl KeySet {
    /// The keys a token may be signed with: those of its key's name, or all.
    pub fn of<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a DecodingKey> {
        let named = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        self.keys.iter().filter(named).map(|key| &key.decoding)
    }

    pub(super) fn parse(document: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(document).unwrap_or_default();
        let keys = document.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let signing = keys.iter().filter(|key| !matches!(key["use"].as_str(), Some(other) if other != "sig"));
        // Issuers publish keys of kinds we do not know; the others are still good.
        let known = signing.take(KEYS_MAX).filter_map(|key| {
            let key: Jwk = serde_json::from_value(key.clone()).ok()?;
            let decoding = DecodingKey::from_jwk(&key).ok()?;
            Some(Key { id: key.common.key_id, decoding })
        });
        Self { keys: known.collect(), read: Instant::now() }
    }
}

// === impl Keys ===

impl Keys {
    /// Of the issuer at a URL. `discovery_url` may be empty, and so may the authorities (PEM) it is trusted by.
    pub fn new(registry: Arc<Registry>, issuer: &str, discovery_url: &str, authorities: &str) -> Self {
        let discovery_url = if discovery_url.is_empty() {
            format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
        } else {
            discovery_url.to_owned()
        };
        Self {
            registry,
            issuer: issuer.to_owned(),
            discovery_url,
            authorities: authorities.as_bytes().into(),
            now: RwLock::default(),
            allowance: Mutex::new(Allowance { left: READINGS_MAX, counted: Instant::now() }),
        }
    }

    /// What is known, read if nothing is.
    ///
    /// # Errors
    /// Nothing is known, and the issuer cannot be asked now.
    pub async fn current(&self) -> Result<Arc<KeySet>, KeysError> {
        let known = self.now.read().clone();
        match known {
            None => self.newer(None).await,
            Some(known) if known.read.elapsed() > AGE_MAX => {
                let newer = self.newer(Some(&known)).await;
                Ok(newer.unwrap_or_else(|error| {
                    tracing::warn!(issuer = self.issuer, %error, "the issuer's keys could not be read again");
                    known
                }))
            }
            Some(known) => Ok(known),
        }
    }

    /// What is known by now beyond `known`, read if that is all.
    ///
    /// # Errors
    /// The issuer was asked a moment ago, or does not answer as it should.
    pub async fn newer(&self, known: Option<&Arc<KeySet>>) -> Result<Arc<KeySet>, KeysError> {
        let mut allowance = self.allowance.lock().await;
        let now = self.now.read().clone();
        if let Some(now) = now
            && !known.is_some_and(|known| Arc::ptr_eq(known, &now))
        {
            return Ok(now);
        }
        if !allowance.take(Instant::now()) {
            return Err(KeysError::TooSoon);
        }
        let set = Arc::new(self.fetch().await?);
        tracing::info!(issuer = self.issuer, keys = set.keys.len(), "read the keys of an issuer of tokens");
        *self.now.write() = Some(set.clone());
        Ok(set)
    }

    async fn fetch(&self) -> Result<KeySet, KeysError> {
        let url = &self.discovery_url;
        let document: Value = serde_json::from_slice(&self.get(url).await?)
            .map_err(|e| failed(url, &format!("no JSON: {e}")))?;
        let said = document["issuer"].as_str().unwrap_or_default();
        if said != self.issuer {
            return Err(KeysError::Issuer {
                url: url.clone(),
                said: said.to_owned(),
                issuer: self.issuer.clone(),
            });
        }
        let key_set = document["jwks_uri"].as_str().unwrap_or_default();
        if !crate::outbound::is_https(key_set) {
            return Err(KeysError::NoKeySet { url: url.clone() });
        }
        let set = KeySet::parse(&self.get(key_set).await?);
        if set.keys.is_empty() { Err(KeysError::NoKeys { url: key_set.to_owned() }) } else { Ok(set) }
    }

    async fn get(&self, url: &str) -> Result<Bytes, KeysError> {
        let (target, path) =
            Target::of_url(url, &self.authorities).ok_or_else(|| failed(url, "not a https URL"))?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|_| failed(url, "not a path"))?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let asking = async {
            let answer = self.registry.outbound().send(&self.registry, &target, None, request).await?;
            read(answer, DOCUMENT_BYTES_MAX).await
        };
        let answered = tokio::time::timeout(FETCH_TIMEOUT, asking).await;
        answered.unwrap_or(Err(CallError::Deadline)).map_err(|error| failed(url, &error.to_string()))
    }
}

fn failed(url: &str, why: &str) -> KeysError {
    KeysError::Fetch { url: url.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_asked_a_few_times_and_then_now_and_then() {
        let mut now = Instant::now();
        let mut allowance = Allowance { left: READINGS_MAX, counted: now };
        assert_eq!((0..10).filter(|_| allowance.take(now)).count(), READINGS_MAX as usize);
        now += REFRESH_INTERVAL;
        assert!(allowance.take(now) && !allowance.take(now));
        now += REFRESH_INTERVAL * 100;
        assert_eq!((0..10).filter(|_| allowance.take(now)).count(), READINGS_MAX as usize);
    }

    #[test]
    fn keys_nobody_knows_are_passed_over() {
        let text = br#"{"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "alg": "ES256",
             "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
            {"kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc",
             "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
            {"kty": "LATTICE", "kid": "b"}, 7]}"#;
        let set = KeySet::parse(text);
        assert_eq!(set.keys.iter().map(|key| key.id.as_deref()).collect::<Vec<_>>(), [Some("a")]);
        assert!(KeySet::parse(b"no json").keys.is_empty());
        assert_eq!((set.of(Some("a")).count(), set.of(None).count(), set.of(Some("z")).count()), (1, 1, 0));
    }
}
