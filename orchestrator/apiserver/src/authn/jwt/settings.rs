//! What an administrator says of the issuers of tokens: one entry of an `AuthenticationConfiguration`, or the
//! `--oidc-*` flags, which say less of the same.

use jsonwebtoken::Algorithm;
use serde::Deserialize;

use crate::error::FieldError;
use crate::outbound::is_https;

/// Audiences one issuer may have (a limit of ours: each token is compared with all).
const AUDIENCES_MAX: usize = 64;

/// An issuer, and what its tokens say of their bearers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtSettings {
    pub issuer: IssuerSettings,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    pub claim_mappings: ClaimMappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
    /// Which signatures count; a file cannot say, and means all of [`ALGORITHMS`].
    #[serde(skip)]
    pub algorithms: Vec<Algorithm>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerSettings {
    /// `iss` of the tokens, an https URL.
    pub url: String,
    /// Where the issuer's metadata is read instead of below `url`.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; the machine's authorities when empty.
    #[serde(default)]
    pub certificate_authority: String,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    pub audience_match_policy: String,
}

/// A claim that must have a value, or an expression over `claims` that must hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

/// An expression over `user` that must hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserRule {
    pub expression: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimMappings {
    pub username: Mapping,
    #[serde(default)]
    pub groups: Mapping,
    #[serde(default)]
    pub uid: Mapping,
    #[serde(default)]
    pub extra: Vec<ExtraMapping>,
}

/// A claim, with a prefix for its value, or an expression.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mapping {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

/// The `--oidc-*` flags.
#[derive(Debug, Clone, Default)]
pub struct OidcFlags {
    pub issuer_url: String,
    pub client_id: String,
    pub username_claim: String,
    /// `-` is none; without one, users of other claims than `email` are prefixed with the issuer.
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    /// `key=value`.
    pub required_claims: Vec<String>,
    pub signing_algorithms: Vec<String>,
    pub authority_pem: String,
}

/// The signatures that may count. Upstream has ES512 too, which our library has not.
pub const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

// === impl OidcFlags ===

impl OidcFlags {
    /// The flags as an entry of a file.
    ///
    /// # Errors
    /// Each flag whose value means nothing, by its name.
    pub fn settings(self) -> Result<JwtSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
            _ if self.username_claim == "email" => String::new(),
            _ => format!("{}#", self.issuer_url),
        };
        let mut rules = Vec::new();
        for required in &self.required_claims {
            match required.split_once('=') {
                Some((claim, value)) if !claim.is_empty() => rules.push(ClaimRule {
                    claim: claim.to_owned(),
                    required_value: value.to_owned(),
                    ..ClaimRule::default()
                }),
                _ => errors.push(FieldError::invalid(
                    "--oidc-required-claim",
                    required.as_str(),
                    "must be of the form key=value",
                )),
            }
        }
        let mut algorithms = Vec::new();
        for name in &self.signing_algorithms {
            match ALGORITHMS.iter().find(|algorithm| format!("{algorithm:?}") == *name) {
                Some(algorithm) => algorithms.push(*algorithm),
                None => {
                    let known = ALGORITHMS.map(|algorithm| format!("{algorithm:?}"));
                    let known: Vec<&str> = known.iter().map(String::as_str).collect();
                    errors.push(FieldError::not_supported("--oidc-signing-algs", name.as_str(), &known));
                }
            }
        }
        let groups = self.groups_claim.map(|claim| Mapping {
            claim,
            prefix: Some(self.groups_prefix),
            expression: String::new(),
        });
        let settings = JwtSettings {
            issuer: IssuerSettings {
                url: self.issuer_url,
                certificate_authority: self.authority_pem,
                audiences: vec![self.client_id],
                ..IssuerSettings::default()
            },
            claim_validation_rules: rules,
            claim_mappings: ClaimMappings {
                username: Mapping {
                    claim: self.username_claim,
                    prefix: Some(prefix),
                    expression: String::new(),
                },
                groups: groups.unwrap_or_default(),
                ..ClaimMappings::default()
            },
            user_validation_rules: Vec::new(),
            algorithms,
        };
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }
}

// === impl IssuerSettings ===

impl IssuerSettings {
    /// Everything that is wrong, under `at`. `taken` are issuers of tokens that others check.
    pub fn check(&self, at: &str, taken: &[&str], errors: &mut Vec<FieldError>) {
        let url = format!("{at}.url");
        if self.url.is_empty() {
            errors.push(FieldError::required(&url, ""));
        } else {
            check_url(&self.url, &url, errors);
            if taken.contains(&self.url.as_str()) {
                let why = format!("URL must not overlap with disallowed issuers: {taken:?}");
                errors.push(FieldError::invalid(&url, self.url.as_str(), why));
            }
        }
        if !self.discovery_url.is_empty() {
            let at = format!("{at}.discoveryURL");
            if self.url.trim_end_matches('/') == self.discovery_url.trim_end_matches('/') {
                let why = "discoveryURL must be different from URL";
                errors.push(FieldError::invalid(&at, self.discovery_url.as_str(), why));
            }
            check_url(&self.discovery_url, &at, errors);
        }
        self.check_audiences(at, errors);
        if !self.certificate_authority.is_empty()
            && let Err(error) = crate::authn::certificate::roots(
                "certificate authority",
                self.certificate_authority.as_bytes(),
            )
        {
            let at = format!("{at}.certificateAuthority");
            errors.push(FieldError::invalid(at, "<omitted>", error.to_string()));
        }
    }

    fn check_audiences(&self, at: &str, errors: &mut Vec<FieldError>) {
        let path = format!("{at}.audiences");
        if self.audiences.is_empty() {
            errors.push(FieldError::required(&path, format!("at least one {path} is required")));
        }
        if self.audiences.len() > AUDIENCES_MAX {
            errors.push(FieldError::too_many(&path, self.audiences.len(), AUDIENCES_MAX));
            return;
        }
        for (index, audience) in self.audiences.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if audience.is_empty() {
                errors.push(FieldError::required(&path, ""));
            }
            if self.audiences[..index].contains(audience) {
                errors.push(FieldError::duplicate(&path, audience.as_str()));
            }
        }
        let policy = self.audience_match_policy.as_str();
        let wrong = match (self.audiences.len(), policy) {
            (_, "MatchAny") | (0 | 1, "") => None,
            (0 | 1, _) => Some("audienceMatchPolicy must be empty or MatchAny for single audience"),
            _ => Some("audienceMatchPolicy must be MatchAny for multiple audiences"),
        };
        if let Some(why) = wrong {
            errors.push(FieldError::invalid(format!("{at}.audienceMatchPolicy"), policy, why));
        }
    }
}

fn check_url(url: &str, at: &str, errors: &mut Vec<FieldError>) {
    let mut wrong = |why: &str| errors.push(FieldError::invalid(at, url, why));
    if !is_https(url) {
        wrong("URL scheme must be https");
    }
    if url.contains('@') {
        wrong("URL must not contain a username or password");
    }
    if url.contains('?') {
        wrong("URL must not contain a query");
    }
    if url.contains('#') {
        wrong("URL must not contain a fragment");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> OidcFlags {
        OidcFlags {
            issuer_url: "https://issuer.example".into(),
            client_id: "kubernetes".into(),
            username_claim: "sub".into(),
            ..OidcFlags::default()
        }
    }

    #[test]
    fn flags_are_an_entry_of_a_file() {
        let settings = flags().settings().unwrap();
        assert_eq!(settings.claim_mappings.username.prefix.as_deref(), Some("https://issuer.example#"));
        assert_eq!(settings.issuer.audiences, ["kubernetes"]);
        let by_mail = OidcFlags { username_claim: "email".into(), ..flags() }.settings().unwrap();
        assert_eq!(by_mail.claim_mappings.username.prefix.as_deref(), Some(""));
        let none = OidcFlags { username_prefix: Some("-".into()), ..flags() }.settings().unwrap();
        assert_eq!(none.claim_mappings.username.prefix.as_deref(), Some(""));
        let required = OidcFlags { required_claims: vec!["hd=example.com".into()], ..flags() };
        assert_eq!(required.settings().unwrap().claim_validation_rules[0].required_value, "example.com");
    }

    #[test]
    fn flags_that_mean_nothing_are_named() {
        let wrong = OidcFlags {
            required_claims: vec!["hd".into()],
            signing_algorithms: vec!["RS256".into(), "HS256".into()],
            ..flags()
        };
        let errors = wrong.settings().unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["--oidc-required-claim", "--oidc-signing-algs"]);
    }

    #[test]
    fn an_issuer_is_an_https_url_with_an_audience() {
        let check = |issuer: IssuerSettings| {
            let mut errors = Vec::new();
            issuer.check("jwt[0].issuer", &["https://ours.example"], &mut errors);
            errors.iter().map(|error| error.path.clone()).collect::<Vec<_>>()
        };
        let fine = || IssuerSettings {
            url: "https://issuer.example".into(),
            audiences: vec!["a".into()],
            ..IssuerSettings::default()
        };
        assert!(check(fine()).is_empty());
        assert_eq!(
            check(IssuerSettings { url: "https://ours.example".into(), ..fine() }),
            ["jwt[0].issuer.url"]
        );
        for url in ["", "http://issuer.example", "https://a@b", "https://a?b", "https://a#b"] {
            assert_eq!(check(IssuerSettings { url: url.into(), ..fine() }), ["jwt[0].issuer.url"], "{url}");
        }
        assert_eq!(
            check(IssuerSettings { audiences: vec!["a".into(), "b".into()], ..fine() }),
            ["jwt[0].issuer.audienceMatchPolicy"]
        );
        assert_eq!(check(IssuerSettings { audiences: vec![], ..fine() }), ["jwt[0].issuer.audiences"]);
        assert_eq!(
            check(IssuerSettings { certificate_authority: "x".into(), ..fine() }),
            ["jwt[0].issuer.certificateAuthority"]
        );
    }
}
