//! The flags that say who may come and what they may do. They have upstream's names and defaults.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

#[derive(Args, Debug, Clone)]
pub struct AccessArguments {
    /// Whether requests without credentials are let in, as system:anonymous.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Authentication")]
    pub anonymous_auth: bool,
    /// Whether bootstrap tokens, Secrets of type bootstrap.kubernetes.io/token in kube-system, are credentials, with which
    /// machines join: see `orchestrator token`.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Authentication")]
    pub enable_bootstrap_token_auth: bool,
    /// Tokens that are good until the server stops: a CSV file of token,user,uid,"group,group".
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    pub token_auth_file: Option<PathBuf>,
    /// Issuers of tokens, their rules, and who may be anonymous: an AuthenticationConfiguration of
    /// apiserver.config.k8s.io/v1.
    #[arg(long, value_name = "FILE", conflicts_with = "oidc_issuer_url", help_heading = "Authentication")]
    pub authentication_config: Option<PathBuf>,
    /// An issuer of OpenID Connect tokens (https).
    #[arg(long, value_name = "URL", requires = "oidc_client_id", help_heading = "Authentication")]
    pub oidc_issuer_url: Option<String>,
    /// The audience tokens of the issuer must have.
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url", help_heading = "Authentication")]
    pub oidc_client_id: Option<String>,
    /// The claim that is the user's name.
    #[arg(long, value_name = "CLAIM", default_value = "sub", help_heading = "Authentication")]
    pub oidc_username_claim: String,
    /// Put before it; - is nothing [default: the issuer and #, unless the claim is email].
    #[arg(
        long,
        value_name = "PREFIX",
        allow_hyphen_values = true,
        requires = "oidc_issuer_url",
        help_heading = "Authentication"
    )]
    pub oidc_username_prefix: Option<String>,
    /// The claim that holds the user's groups.
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url", help_heading = "Authentication")]
    pub oidc_groups_claim: Option<String>,
    /// Put before each of them.
    #[arg(long, value_name = "PREFIX", requires = "oidc_groups_claim", help_heading = "Authentication")]
    pub oidc_groups_prefix: Option<String>,
    /// A claim tokens must have with a value. May be repeated.
    #[arg(
        long,
        value_name = "KEY=VALUE",
        value_delimiter = ',',
        requires = "oidc_issuer_url",
        help_heading = "Authentication"
    )]
    pub oidc_required_claim: Vec<String>,
    /// Signatures that count.
    #[arg(
        long,
        value_name = "ALG,..",
        value_delimiter = ',',
        default_value = "RS256",
        help_heading = "Authentication"
    )]
    pub oidc_signing_algs: Vec<String>,
    /// Whom the issuer's certificate must be signed by [default: one of the machine's authorities].
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url", help_heading = "Authentication")]
    pub oidc_ca_file: Option<PathBuf>,
    /// A webhook that reviews tokens, as a kubeconfig file.
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers count.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration, help_heading = "Authentication")]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// The version of TokenReview it speaks.
    #[arg(long, value_enum, default_value_t = ReviewVersion::V1, help_heading = "Authentication")]
    pub authentication_token_webhook_version: ReviewVersion,
    /// Who says what users may do, in this order.
    #[arg(long, value_enum, value_name = "MODE,..", value_delimiter = ',', default_values_t = [AuthorizationMode::Node, AuthorizationMode::Rbac], help_heading = "Authorization")]
    pub authorization_mode: Vec<AuthorizationMode>,
    /// A webhook that reviews access, as a kubeconfig file; for --authorization-mode Webhook.
    #[arg(long, value_name = "FILE", help_heading = "Authorization")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// How long it counts that the webhook allowed something.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, help_heading = "Authorization")]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long it counts that it did not.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Authorization")]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
    /// The version of SubjectAccessReview it speaks.
    #[arg(long, value_enum, default_value_t = ReviewVersion::V1, help_heading = "Authorization")]
    pub authorization_webhook_version: ReviewVersion,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewVersion {
    V1,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// What nodes need, and no more.
    #[value(name = "Node")]
    Node,
    /// Roles and their bindings.
    #[value(name = "RBAC")]
    Rbac,
    #[value(name = "Webhook")]
    Webhook,
}

/// A duration as Go writes it: 30s, 2m0s.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    parsed.try_into().map_err(|_| "it must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("2m0s"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }
}
