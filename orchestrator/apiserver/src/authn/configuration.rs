//! How requests are authenticated, as an administrator writes it: an `AuthenticationConfiguration` of
//! `apiserver.config.k8s.io`, and a file of tokens.

use serde::Deserialize;

use super::jwt::settings::JwtSettings;
use super::webhook::TokenWebhookConfig;
use crate::error::FieldError;
use crate::registry::User;
use crate::server::config::StaticToken;

const GROUP: &str = "apiserver.config.k8s.io";
const KIND: &str = "AuthenticationConfiguration";
/// Upstream's.
const ISSUERS_MAX: usize = 64;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("{file}: {why}")]
    Syntax { file: String, why: String },
    #[error("{file} is {is}, not an {KIND} of {GROUP}/v1")]
    Kind { file: String, is: String },
    #[error("{file} is refused: {}", listed(.errors))]
    Invalid { file: String, errors: Vec<FieldError> },
    #[error("{file}, line {line}: {why}")]
    Token { file: String, line: usize, why: &'static str },
}

fn listed(errors: &[FieldError]) -> String {
    errors.iter().map(|error| format!("{}: {}", error.path, error.body())).collect::<Vec<_>>().join("; ")
}

/// The ways beside certificates, service-account tokens and fixed tokens.
#[derive(Debug, Clone, Default)]
pub struct AuthenticationConfig {
    /// Issuers whose tokens are accepted.
    pub jwt: Vec<JwtSettings>,
    pub anonymous: Anonymous,
    pub token_webhook: Option<TokenWebhookConfig>,
}

/// Who may come without credentials, if anybody may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anonymous {
    #[serde(default)]
    pub enabled: bool,
    /// Only requests on one of these paths; on any when there are none.
    #[serde(default)]
    pub conditions: Vec<AnonymousCondition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnonymousCondition {
    pub path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<JwtSettings>,
    anonymous: Option<Anonymous>,
}

// === impl Anonymous ===

impl Anonymous {
    /// Everybody, on any path: upstream's default.
    pub fn everywhere() -> Self {
        Self { enabled: true, conditions: Vec::new() }
    }

    /// Whether a request on a path may come without credentials.
    pub fn allows(&self, path: &str) -> bool {
        self.enabled && (self.conditions.is_empty() || self.conditions.iter().any(|c| c.path == path))
    }
}

/// Reads an `AuthenticationConfiguration`: the issuers, and who may be anonymous if it says so. What is wrong inside
/// an issuer's rules is found when the server is made.
///
/// # Errors
/// No YAML, another kind, an unknown field, or settings that contradict each other.
pub fn parse(file: &str, text: &[u8]) -> Result<(Vec<JwtSettings>, Option<Anonymous>), ConfigurationError> {
    let syntax =
        |e: serde_yaml::Error| ConfigurationError::Syntax { file: file.to_owned(), why: e.to_string() };
    let Document { api_version, kind, jwt, anonymous } = serde_yaml::from_slice(text).map_err(syntax)?;
    let version = api_version.strip_prefix(GROUP).unwrap_or_default();
    if kind != KIND || !matches!(version, "/v1" | "/v1beta1") {
        return Err(ConfigurationError::Kind { file: file.to_owned(), is: format!("{api_version} {kind}") });
    }
    let mut errors = Vec::new();
    if jwt.len() > ISSUERS_MAX {
        errors.push(FieldError::too_many("jwt", jwt.len(), ISSUERS_MAX));
    }
    if anonymous.as_ref().is_some_and(|a| !a.enabled && !a.conditions.is_empty()) {
        let why = "enabled should be set to true when conditions are defined";
        errors.push(FieldError::invalid("anonymous.conditions", "", why));
    }
    if errors.is_empty() {
        Ok((jwt, anonymous))
    } else {
        Err(ConfigurationError::Invalid { file: file.to_owned(), errors })
    }
}

/// Refuses issuers whose rules contradict each other, by the file they come from.
pub fn invalid(file: &str, errors: Vec<FieldError>) -> ConfigurationError {
    ConfigurationError::Invalid { file: file.to_owned(), errors }
}

/// Reads a token file: a line is `token,user,uid` and optionally `"group,group"`, as CSV. Of a token that is there
/// twice the last line counts, as upstream.
///
/// # Errors
/// The first line that says too little.
pub fn parse_tokens(file: &str, text: &str) -> Result<Vec<StaticToken>, ConfigurationError> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why| ConfigurationError::Token { file: file.to_owned(), line: index + 1, why };
        let fields = fields(line).ok_or_else(|| wrong("a quote is not closed"))?;
        let [token, name, uid, rest @ ..] = &fields[..] else {
            return Err(wrong("it needs a token, a user name and a user id"));
        };
        if token.is_empty() {
            return Err(wrong("the token is empty"));
        }
        let groups = rest.first().map(String::as_str).unwrap_or_default().split(',');
        let groups = groups.map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect();
        let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
        tokens.push(StaticToken { token: token.clone(), user });
    }
    Ok(tokens)
}

/// The fields of a line of CSV; a quoted one may hold commas, and quotes that are doubled.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' if is_quoted => is_quoted = false,
            '"' if field.trim().is_empty() => {
                field.clear();
                is_quoted = true;
            }
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    (!is_quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_issuers_and_who_may_be_anonymous() {
        let (jwt, anonymous) = parse(
            "f",
            b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
              anonymous: {enabled: true, conditions: [{path: /livez}]}\n\
              jwt: [{issuer: {url: 'https://i', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]",
        )
        .unwrap();
        assert_eq!(jwt[0].issuer.url, "https://i");
        let anonymous = anonymous.unwrap();
        assert!(anonymous.allows("/livez") && !anonymous.allows("/livez/ping") && !anonymous.allows("/"));
        assert!(Anonymous::everywhere().allows("/"));
        assert!(!Anonymous::default().allows("/"));
    }

    #[test]
    fn what_is_no_such_file_says_so() {
        let refused = |text: &str| parse("f", text.as_bytes()).unwrap_err().to_string();
        assert!(refused("apiVersion: v1\nkind: Pod").contains("f is v1 Pod"));
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        assert!(refused(&format!("{head}jwts: []")).contains("jwts"));
        assert!(refused(&format!("{head}jwt: [{{issuer: {{}}}}]")).contains("url"));
        let closed = refused(&format!("{head}anonymous: {{conditions: [{{path: /a}}]}}"));
        assert!(closed.contains("anonymous.conditions"), "{closed}");
        assert!(refused("[").starts_with("f: "));
    }

    #[test]
    fn a_token_file_is_csv() {
        let text = "# tokens\nabc,ann,1,\"g1, g2\"\n\ndef,bob,2\nghi,\"o\"\"b, x\",3,g\n";
        let tokens = parse_tokens("f", text).unwrap();
        let shown: Vec<_> = tokens
            .iter()
            .map(|t| format!("{} {} {} {:?}", t.token, t.user.name, t.user.uid, t.user.groups))
            .collect();
        assert_eq!(shown, [r#"abc ann 1 ["g1", "g2"]"#, "def bob 2 []", r#"ghi o"b, x 3 ["g"]"#]);
        for (text, why) in [("abc,ann", "line 1"), ("a,b,c\n,d,e", "line 2"), ("a,\"b,c", "quote")] {
            let refused = parse_tokens("f", text).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
