//! A webhook configuration as admission needs it. Pure.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::conditions::Conditions;
use super::matching::Rule;
use crate::outbound::{Address, Target, Trust};
use crate::registry::object::{items_at, meta_str, str_at};
use crate::registry::selector::LabelSelector;

const TIMEOUT_SECONDS_DEFAULT: u64 = 10;
const PORT_DEFAULT: u64 = 443;

/// One webhook of a configuration.
pub(crate) struct Webhook {
    pub name: String,
    pub configuration: String,
    /// Stands for this webhook among those of its kind.
    pub id: String,
    /// None: the configuration names nobody that could be asked.
    pub target: Option<(Target, String)>,
    pub rules: Vec<Rule>,
    /// Also asked about the same objects in other versions, in the version it knows.
    pub takes_equivalents: bool,
    pub namespaces: LabelSelector,
    pub objects: LabelSelector,
    pub conditions: Conditions,
    pub timeout: Duration,
    /// A failure lets the request through.
    pub fails_open: bool,
    pub may_run_dry: bool,
    /// Asked again when something changes the object after it.
    pub wants_again: bool,
    /// The first version of AdmissionReview this server knows as well.
    pub review_version: Option<&'static str>,
}

/// The webhooks of a configuration, in order.
pub(crate) fn read(configuration: &Value) -> Vec<Webhook> {
    let name = meta_str(configuration, "name");
    let webhooks = items_at(configuration, "/webhooks");
    webhooks.iter().enumerate().map(|(index, webhook)| read_one(name, index, webhook)).collect()
}

fn read_one(configuration: &str, index: usize, webhook: &Value) -> Webhook {
    let name = str_at(webhook, "/name");
    let selector = |field: &str| match webhook.get(field) {
        None | Some(Value::Null) => LabelSelector::default(),
        Some(selector) => LabelSelector::from_object(selector).unwrap_or_default(),
    };
    let versions = items_at(webhook, "/admissionReviewVersions").iter();
    let known = |version: &Value| ["v1", "v1beta1"].into_iter().find(|known| version == known);
    Webhook {
        name: name.to_owned(),
        configuration: configuration.to_owned(),
        id: format!("{configuration}/{name}/{index}"),
        target: target(&webhook["clientConfig"]),
        rules: items_at(webhook, "/rules").iter().map(Rule::read).collect(),
        takes_equivalents: str_at(webhook, "/matchPolicy") != "Exact",
        namespaces: selector("namespaceSelector"),
        objects: selector("objectSelector"),
        conditions: Conditions::read(webhook),
        timeout: Duration::from_secs(webhook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS_DEFAULT)),
        fails_open: str_at(webhook, "/failurePolicy") == "Ignore",
        may_run_dry: ["None", "NoneOnDryRun"].contains(&str_at(webhook, "/sideEffects")),
        wants_again: str_at(webhook, "/reinvocationPolicy") == "IfNeeded",
        review_version: versions.filter_map(known).next(),
    }
}

/// Whom a `clientConfig` (of a webhook or a conversion) names, and the path there.
pub(crate) fn target(client: &Value) -> Option<(Target, String)> {
    let authorities = STANDARD.decode(str_at(client, "/caBundle")).ok()?;
    if let Some(url) = client["url"].as_str() {
        return Target::of_url(url, &authorities);
    }
    let service = client.get("service").filter(|service| service.is_object())?;
    let address = Address::Service {
        namespace: str_at(service, "/namespace").to_owned(),
        name: str_at(service, "/name").to_owned(),
        port: u16::try_from(service["port"].as_u64().unwrap_or(PORT_DEFAULT)).ok()?,
    };
    let path = str_at(service, "/path");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some((Target { address, trust: Trust::Authorities(authorities.into()) }, path))
}
