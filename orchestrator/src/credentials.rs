//! `orchestrator credentials`: kubeconfigs for administrators, other users and nodes.
//!
//! Needs only the data directory, so it works before the control plane first runs and while it does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{CredentialsOf, IssueArguments};
use crate::config::is_domain;
use crate::data_dir::{DataDir, DataDirError};
use crate::files::{self, FileError};
use crate::kubeconfig::Kubeconfig;
use crate::pki::{self, Authority, Leaf, PkiError, Purpose};

const ADMIN: &str = "kubernetes-admin";
const ADMIN_GROUP: &str = "system:masters";
const NODE_GROUP: &str = "system:nodes";

/// Why no credentials were written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("--server {url:?} is not a URL like https://10.0.0.1:6443")]
    NotAUrl { url: String },
    #[error("{name:?} cannot be a node's name: it must be a DNS name in lower case")]
    NotANodeName { name: String },
    #[error(
        "{name:?} cannot be the name of a user or group: it must not be empty, nor hold control characters"
    )]
    NotAName { name: String },
}

/// Issues and writes what was asked for.
pub fn write(of: CredentialsOf) -> anyhow::Result<()> {
    match of {
        CredentialsOf::Admin(issue) => {
            let authority = authority(&issue)?;
            write_admin(&authority, &issue.server, &issue.out, issue.validity_period)?;
        }
        CredentialsOf::User { name, issue, groups } => {
            let unusable = |name: &&String| name.is_empty() || name.chars().any(char::is_control);
            if let Some(name) = std::iter::once(&name).chain(&groups).find(unusable) {
                return Err(CredentialsError::NotAName { name: name.clone() }.into());
            }
            let authority = authority(&issue)?;
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            write_client(&authority, &issue.server, &issue.out, &name, &groups, issue.validity_period)?;
        }
        CredentialsOf::Node { name, issue, address } => {
            if !is_domain(&name) || name.chars().any(|letter| letter.is_ascii_uppercase()) {
                return Err(CredentialsError::NotANodeName { name }.into());
            }
            let authority = authority(&issue)?;
            write_node(&authority, &issue, &name, &address.to_string())?;
        }
    }
    Ok(())
}

/// Writes the administrator's kubeconfig, good for `life`.
pub fn write_admin(
    authority: &Authority,
    server: &str,
    out: &Path,
    life: Duration,
) -> Result<(), CredentialsError> {
    write_client(authority, server, out, ADMIN, &[ADMIN_GROUP], life)
}

fn write_client(
    authority: &Authority,
    server: &str,
    out: &Path,
    user: &str,
    groups: &[&str],
    life: Duration,
) -> Result<(), CredentialsError> {
    let credentials = pki::client(user, groups).issue(authority, life)?;
    let authority_pem = &authority.certificate_pem;
    let kubeconfig = Kubeconfig { server, authority_pem, user, credentials: &credentials };
    Ok(kubeconfig.write(out)?)
}

fn write_node(
    authority: &Authority,
    issue: &IssueArguments,
    name: &str,
    address: &str,
) -> Result<(), CredentialsError> {
    let user = format!("system:node:{name}");
    let serving = Leaf {
        common_name: user.clone(),
        organizations: vec![NODE_GROUP.to_owned()],
        names: [name.to_owned(), address.to_owned()].into(),
        purpose: Purpose::Server,
    };
    let serving = serving.issue(authority, issue.validity_period)?;
    files::write_private(&beside(&issue.out, "serving.key"), serving.key_pem.as_bytes())?;
    files::write_private(&beside(&issue.out, "serving.crt"), serving.certificate_pem.as_bytes())?;
    files::write_private(&beside(&issue.out, "ca.crt"), authority.certificate_pem.as_bytes())?;
    write_client(authority, &issue.server, &issue.out, &user, &[NODE_GROUP], issue.validity_period)
}

fn authority(issue: &IssueArguments) -> Result<Authority, CredentialsError> {
    if !issue.server.starts_with("https://") || issue.server.len() == "https://".len() {
        return Err(CredentialsError::NotAUrl { url: issue.server.clone() });
    }
    let data = DataDir::ensure(&issue.data_dir)?;
    let _turn = data.lock_pki()?;
    Ok(pki::ensure_authority(&data.pki())?)
}

/// `FILE.suffix` of `FILE`.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(directory: &Path, server: &str) -> IssueArguments {
        IssueArguments {
            data_dir: directory.join("data"),
            server: server.to_owned(),
            out: directory.join("kubeconfig"),
            validity_period: pki::USUAL_LIFE,
        }
    }

    #[test]
    fn a_node_gets_a_kubeconfig_a_serving_certificate_and_the_authority() {
        let directory = tempfile::tempdir().unwrap();
        let issue = issue(directory.path(), "https://10.240.0.1:6443");
        let of =
            CredentialsOf::Node { name: "node-1".to_owned(), issue, address: "10.240.0.11".parse().unwrap() };
        write(of).unwrap();
        for name in ["kubeconfig", "kubeconfig.serving.crt", "kubeconfig.serving.key", "kubeconfig.ca.crt"] {
            assert!(directory.path().join(name).exists(), "{name} is missing");
        }
        let authority = std::fs::read(directory.path().join("data/pki/ca.crt")).unwrap();
        assert_eq!(std::fs::read(directory.path().join("kubeconfig.ca.crt")).unwrap(), authority);
    }

    #[test]
    fn a_user_gets_a_certificate_with_its_name_and_groups() {
        let directory = tempfile::tempdir().unwrap();
        let issue = issue(directory.path(), "https://10.240.0.1:6443");
        let (name, groups) = ("system:kube-scheduler".to_owned(), vec!["team:a".to_owned(), "b".to_owned()]);
        write(CredentialsOf::User { name, issue, groups }).unwrap();
        let kubeconfig = std::fs::read_to_string(directory.path().join("kubeconfig")).unwrap();
        let kubeconfig: serde_json::Value = serde_yaml::from_str(&kubeconfig).unwrap();
        let data = kubeconfig["users"][0]["user"]["client-certificate-data"].as_str().unwrap();
        let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let subject = pem.parse_x509().unwrap().subject().to_string();
        assert!(subject.contains("CN=system:kube-scheduler"), "{subject}");
        assert!(subject.contains("O=team:a") && subject.contains("O=b"), "{subject}");
    }

    #[test]
    fn a_user_or_group_without_a_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (name, group) in [("", "b"), ("a", ""), ("a\n", "b")] {
            let issue = issue(directory.path(), "https://10.240.0.1:6443");
            let of = CredentialsOf::User { name: name.to_owned(), issue, groups: vec![group.to_owned()] };
            assert!(write(of).unwrap_err().to_string().contains("cannot be the name"));
        }
    }

    #[test]
    fn a_server_without_scheme_and_a_bad_node_name_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(CredentialsOf::Admin(issue(directory.path(), "10.0.0.1:6443"))).unwrap_err();
        assert!(error.to_string().contains("https://10.0.0.1:6443"), "{error}");
        let address = "10.0.0.1".parse().unwrap();
        let issue = issue(directory.path(), "https://10.0.0.1:6443");
        let error = write(CredentialsOf::Node { name: "Node_1".to_owned(), issue, address }).unwrap_err();
        assert!(error.to_string().contains("Node_1"), "{error}");
    }
}
