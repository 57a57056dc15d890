//! The files behind the flags of authentication and authorisation, read once before the API server starts.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use penstock_apiserver::authn::configuration::{self, Anonymous, AuthenticationConfig};
use penstock_apiserver::authn::jwt::settings::OidcFlags;
use penstock_apiserver::authn::webhook::TokenWebhookConfig;
use penstock_apiserver::authz::webhook::AccessWebhookConfig;
use penstock_apiserver::authz::{AuthorizationConfig, Mode};
use penstock_apiserver::{StaticToken, Webhook};

use crate::cli::access::{AccessArguments, AuthorizationMode};

/// What the API server is told.
#[derive(Debug)]
pub struct Access {
    pub static_tokens: Vec<StaticToken>,
    pub authentication: AuthenticationConfig,
    pub authorization: AuthorizationConfig,
}

/// Reads and checks what the flags name.
///
/// # Errors
/// The flag, the file and what is wrong with it.
pub fn read(arguments: &AccessArguments) -> anyhow::Result<Access> {
    let static_tokens = match &arguments.token_auth_file {
        Some(path) => {
            let text = text("--token-auth-file", path)?;
            configuration::parse_tokens(&path.display().to_string(), &text)?
        }
        None => Vec::new(),
    };
    Ok(Access {
        static_tokens,
        authentication: authentication(arguments)?,
        authorization: authorization(arguments)?,
    })
}

fn authentication(arguments: &AccessArguments) -> anyhow::Result<AuthenticationConfig> {
    let mut jwt = Vec::new();
    let mut anonymous = Anonymous { enabled: arguments.anonymous_auth, conditions: Vec::new() };
    if let Some(path) = &arguments.authentication_config {
        let text = text("--authentication-config", path)?;
        let (issuers, said) = configuration::parse(&path.display().to_string(), text.as_bytes())?;
        jwt = issuers;
        if let Some(said) = said {
            ensure!(
                arguments.anonymous_auth,
                "--anonymous-auth=false and the anonymous of --authentication-config contradict each other; leave one out"
            );
            anonymous = said;
        }
    }
    if let Some(issuer_url) = &arguments.oidc_issuer_url {
        let authority_pem = match &arguments.oidc_ca_file {
            Some(path) => text("--oidc-ca-file", path)?,
            None => String::new(),
        };
        let flags = OidcFlags {
            issuer_url: issuer_url.clone(),
            client_id: arguments.oidc_client_id.clone().unwrap_or_default(),
            username_claim: arguments.oidc_username_claim.clone(),
            username_prefix: arguments.oidc_username_prefix.clone(),
            groups_claim: arguments.oidc_groups_claim.clone(),
            groups_prefix: arguments.oidc_groups_prefix.clone().unwrap_or_default(),
            required_claims: arguments.oidc_required_claim.clone(),
            signing_algorithms: arguments.oidc_signing_algs.clone(),
            authority_pem,
        };
        jwt.push(flags.settings().map_err(|errors| configuration::invalid("the command line", errors))?);
    }
    let token_webhook = match &arguments.authentication_token_webhook_config_file {
        Some(path) => Some(TokenWebhookConfig {
            webhook: Webhook::read(path).context("--authentication-token-webhook-config-file")?,
            remember: arguments.authentication_token_webhook_cache_ttl,
        }),
        None => None,
    };
    Ok(AuthenticationConfig { jwt, anonymous, token_webhook })
}

fn authorization(arguments: &AccessArguments) -> anyhow::Result<AuthorizationConfig> {
    let mut modes = Vec::new();
    for mode in &arguments.authorization_mode {
        let mode = match mode {
            AuthorizationMode::Node => Mode::Node,
            AuthorizationMode::Rbac => Mode::Rbac,
            AuthorizationMode::Webhook => Mode::Webhook,
        };
        ensure!(!modes.contains(&mode), "--authorization-mode names {mode:?} twice");
        modes.push(mode);
    }
    let webhook = match (&arguments.authorization_webhook_config_file, modes.contains(&Mode::Webhook)) {
        (None, false) => None,
        (Some(path), true) => Some(AccessWebhookConfig {
            webhook: Webhook::read(path).context("--authorization-webhook-config-file")?,
            remember_allowed: arguments.authorization_webhook_cache_authorized_ttl,
            remember_refused: arguments.authorization_webhook_cache_unauthorized_ttl,
        }),
        (None, true) => bail!("--authorization-mode Webhook needs --authorization-webhook-config-file"),
        (Some(_), false) => {
            bail!(
                "--authorization-webhook-config-file needs Webhook in --authorization-mode, at its place there"
            )
        }
    };
    Ok(AuthorizationConfig { modes, webhook })
}

fn text(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn read_of(flags: &[&str]) -> anyhow::Result<Access> {
        let words = ["orchestrator", "run", "--data-dir=/d"].iter().chain(flags);
        let Command::Run(run) = Cli::try_parse_from(words)?.command else { bail!("not run") };
        read(&run.access)
    }

    fn refused(flags: &[&str]) -> String {
        format!("{:#}", read_of(flags).unwrap_err())
    }

    #[test]
    fn flags_have_upstreams_defaults() {
        let access = read_of(&[]).unwrap();
        assert_eq!(access.authorization.modes, [Mode::Node, Mode::Rbac]);
        assert!(access.authentication.anonymous.allows("/") && access.authentication.jwt.is_empty());
        let closed = read_of(&["--anonymous-auth=false"]).unwrap();
        assert!(!closed.authentication.anonymous.allows("/"));
        let issuer = ["--oidc-issuer-url=https://i.example", "--oidc-client-id=k"];
        let access = read_of(&issuer).unwrap();
        let username = &access.authentication.jwt[0].claim_mappings.username;
        assert_eq!(
            (username.claim.as_str(), username.prefix.as_deref()),
            ("sub", Some("https://i.example#"))
        );
        let plain = [&issuer[..], &["--oidc-username-prefix=-", "--oidc-required-claim=a=b,c=d"]].concat();
        let access = read_of(&plain).unwrap();
        assert_eq!(access.authentication.jwt[0].claim_mappings.username.prefix.as_deref(), Some(""));
        assert_eq!(access.authentication.jwt[0].claim_validation_rules.len(), 2);
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_flag() {
        assert!(refused(&["--oidc-issuer-url=https://i"]).contains("--oidc-client-id"));
        assert!(refused(&["--token-auth-file=/nonexistent"]).contains("--token-auth-file /nonexistent"));
        assert!(refused(&["--authorization-mode=Webhook"]).contains("--authorization-webhook-config-file"));
        assert!(refused(&["--authorization-mode=RBAC,RBAC"]).contains("twice"));
        assert!(refused(&["--authorization-webhook-config-file=/x"]).contains("--authorization-mode"));
        let webhook = refused(&["--authentication-token-webhook-config-file=/nonexistent"]);
        assert!(webhook.contains("--authentication-token-webhook-config-file"), "{webhook}");
        let algorithms = ["--oidc-issuer-url=https://i", "--oidc-client-id=k", "--oidc-signing-algs=HS256"];
        assert!(refused(&algorithms).contains("--oidc-signing-algs"));
    }
}
