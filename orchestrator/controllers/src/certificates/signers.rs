//! What the built-in signers ask of a request before they sign it
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>). Pure.

use penstock_certificates::{AlternativeName, Request};

const NODE_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";

/// A signer whose requests this control plane signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Any client of the API server.
    Client,
    /// A node as a client of the API server.
    KubeletClient,
    /// A node as a server.
    KubeletServing,
    /// Whatever requests of the first versions of the API asked for.
    LegacyUnknown,
}

/// Why a signer refuses a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("DNS or IP subjectAltName is required")]
    NoName,
    #[error("{kind} subjectAltNames are not allowed")]
    Name { kind: &'static str },
    #[error("usages did not match {wanted:?}, with or without \"key encipherment\"")]
    Usages { wanted: [&'static str; 2] },
    #[error("invalid usage for client certificate: {usage}")]
    Usage { usage: String },
    #[error("missing required usage for client certificate: client auth")]
    NoClientAuth,
}

// === impl Signer ===

impl Signer {
    /// The built-in signer of that name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("kubernetes.io/")? {
            "kube-apiserver-client" => Self::Client,
            "kube-apiserver-client-kubelet" => Self::KubeletClient,
            "kubelet-serving" => Self::KubeletServing,
            "legacy-unknown" => Self::LegacyUnknown,
            _ => return None,
        })
    }

    /// Whether this signer signs such a request.
    pub fn judge(self, request: &Request, usages: &[String]) -> Result<(), Refusal> {
        match self {
            Self::LegacyUnknown => Ok(()),
            Self::Client => judge_client_usages(usages),
            Self::KubeletClient => {
                judge_node(request)?;
                if let Some(name) = request.names.first() {
                    return Err(Refusal::Name { kind: kind(name) });
                }
                judge_usages(usages, "client auth")
            }
            Self::KubeletServing => {
                judge_node(request)?;
                let is_for_servers = |it: &&AlternativeName| {
                    matches!(it, AlternativeName::Dns(_) | AlternativeName::Address(_))
                };
                if let Some(name) = request.names.iter().find(|it| !is_for_servers(it)) {
                    return Err(Refusal::Name { kind: kind(name) });
                }
                if request.names.is_empty() {
                    return Err(Refusal::NoName);
                }
                judge_usages(usages, "server auth")
            }
        }
    }
}

fn kind(name: &AlternativeName) -> &'static str {
    match name {
        AlternativeName::Dns(_) => "DNS",
        AlternativeName::Address(_) => "IP",
        AlternativeName::Email(_) => "Email",
        AlternativeName::Uri(_) => "URI",
    }
}

fn judge_node(request: &Request) -> Result<(), Refusal> {
    if request.organizations != [NODE_GROUP] {
        return Err(Refusal::Organization);
    }
    if !request.common_name.starts_with(NODE_USER_PREFIX) {
        return Err(Refusal::CommonName);
    }
    Ok(())
}

/// Exactly these; encipherment of keys is for RSA.
fn judge_usages(usages: &[String], purpose: &'static str) -> Result<(), Refusal> {
    let wanted = ["digital signature", purpose];
    let has = |name: &str| usages.iter().any(|it| it == name);
    let known = |it: &String| wanted.contains(&it.as_str()) || it == "key encipherment";
    if wanted.into_iter().all(has) && usages.iter().all(known) {
        Ok(())
    } else {
        Err(Refusal::Usages { wanted })
    }
}

fn judge_client_usages(usages: &[String]) -> Result<(), Refusal> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages.iter().find(|it| !allowed.contains(&it.as_str())) {
        return Err(Refusal::Usage { usage: usage.clone() });
    }
    if usages.iter().any(|it| it == "client auth") { Ok(()) } else { Err(Refusal::NoClientAuth) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::signing::tests::request;

    fn judge(signer: Signer, subject: (&str, &str), names: &[&str], usages: &[&str]) -> Result<(), Refusal> {
        let usages: Vec<String> = usages.iter().map(|&it| it.to_owned()).collect();
        signer.judge(&Request::parse(&request(subject.0, subject.1, names)).unwrap(), &usages)
    }

    #[test]
    fn a_node_gets_a_client_certificate_in_its_name_alone() {
        let (ours, node) = (Signer::KubeletClient, ("system:node:n", "system:nodes"));
        let good = ["digital signature", "client auth"];
        assert_eq!(judge(ours, node, &[], &good), Ok(()));
        assert_eq!(judge(ours, node, &[], &["client auth", "digital signature", "key encipherment"]), Ok(()));
        assert_eq!(judge(ours, ("system:node:n", "x"), &[], &good), Err(Refusal::Organization));
        assert_eq!(judge(ours, ("n", "system:nodes"), &[], &good), Err(Refusal::CommonName));
        assert_eq!(judge(ours, node, &["n"], &good), Err(Refusal::Name { kind: "DNS" }));
        assert_eq!(judge(ours, node, &["10.0.0.1"], &good), Err(Refusal::Name { kind: "IP" }));
        for usages in
            [&["client auth"][..], &["digital signature", "server auth"], &[good[0], good[1], "any"]]
        {
            assert!(matches!(judge(ours, node, &[], usages), Err(Refusal::Usages { .. })), "{usages:?}");
        }
    }

    #[test]
    fn a_node_serves_under_some_name() {
        let (ours, node) = (Signer::KubeletServing, ("system:node:n", "system:nodes"));
        let good = ["digital signature", "server auth"];
        assert_eq!(judge(ours, node, &["n", "10.0.0.1"], &good), Ok(()));
        assert_eq!(judge(ours, node, &[], &good), Err(Refusal::NoName));
        assert!(matches!(judge(ours, node, &["n"], &["client auth"]), Err(Refusal::Usages { .. })));
    }

    #[test]
    fn clients_may_be_anybody_and_nothing_but_clients() {
        assert_eq!(judge(Signer::Client, ("jane", "team"), &["x"], &["client auth"]), Ok(()));
        assert_eq!(
            judge(Signer::Client, ("jane", "team"), &[], &["digital signature"]),
            Err(Refusal::NoClientAuth)
        );
        let server = judge(Signer::Client, ("jane", "team"), &[], &["client auth", "server auth"]);
        assert_eq!(server, Err(Refusal::Usage { usage: "server auth".to_owned() }));
        assert_eq!(judge(Signer::LegacyUnknown, ("x", "y"), &[], &["any"]), Ok(()));
        assert_eq!(Signer::named("example.com/kubelet-serving"), None);
    }
}
