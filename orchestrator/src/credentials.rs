//! `orchestrator credentials`: kubeconfigs for administrators and nodes.
//!
//! Needs only the data directory, so it works before the control plane first runs and while it does.

use std::path::{Path, PathBuf};

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
}

/// Issues and writes what was asked for.
pub fn write(of: CredentialsOf) -> anyhow::Result<()> {
    match of {
        CredentialsOf::Admin(issue) => {
            let authority = authority(&issue)?;
            write_admin(&authority, &issue.server, &issue.out)?;
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

/// Writes the administrator's kubeconfig.
pub fn write_admin(authority: &Authority, server: &str, out: &Path) -> Result<(), CredentialsError> {
    let credentials = pki::client(ADMIN, &[ADMIN_GROUP]).issue(authority)?;
    let kubeconfig = Kubeconfig {
        server,
        authority_pem: &authority.certificate_pem,
        user: ADMIN,
        credentials: &credentials,
    };
    Ok(kubeconfig.write(out)?)
}

fn write_node(
    authority: &Authority,
    issue: &IssueArguments,
    name: &str,
    address: &str,
) -> Result<(), CredentialsError> {
    let user = format!("system:node:{name}");
    let credentials = pki::client(&user, &[NODE_GROUP]).issue(authority)?;
    let serving = Leaf {
        common_name: user.clone(),
        organizations: vec![NODE_GROUP.to_owned()],
        names: [name.to_owned(), address.to_owned()].into(),
        purpose: Purpose::Server,
    };
    let serving = serving.issue(authority)?;
    files::write_private(&beside(&issue.out, "serving.key"), serving.key_pem.as_bytes())?;
    files::write_private(&beside(&issue.out, "serving.crt"), serving.certificate_pem.as_bytes())?;
    files::write_private(&beside(&issue.out, "ca.crt"), authority.certificate_pem.as_bytes())?;
    let server = &issue.server;
    let kubeconfig = Kubeconfig {
        server,
        authority_pem: &authority.certificate_pem,
        user: &user,
        credentials: &credentials,
    };
    Ok(kubeconfig.write(&issue.out)?)
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
