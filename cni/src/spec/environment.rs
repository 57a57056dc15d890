//! What the runtime says in CNI_* variables.
//!
//! It exists so that a missing or malformed variable is refused before anything is touched (error 4). It must not
//! know the configuration or the agent.

use super::{Code, Failure};
use crate::protocol::{AttachmentId, PodName};

/// The device name limit of the kernel, without the terminating zero.
const INTERFACE_BYTES_MAX: usize = 15;
/// Longest container id accepted. Runtimes use 64 hexadecimal digits.
const CONTAINER_BYTES_MAX: usize = 256;

/// CNI_COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Verify.
    Check,
    /// Remove what no longer lives.
    Gc,
    /// Report readiness.
    Status,
    /// Report versions.
    Version,
}

/// The variables, unvalidated: each verb needs others.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// CNI_COMMAND.
    pub command: Option<String>,
    /// CNI_CONTAINERID.
    pub container: Option<String>,
    /// CNI_NETNS.
    pub netns: Option<String>,
    /// CNI_IFNAME.
    pub interface: Option<String>,
    /// CNI_ARGS.
    pub args: Option<String>,
}

impl Environment {
    /// Reads variables through `var`, so that tests need no process environment.
    pub fn read(var: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name| var(name).filter(|value| !value.is_empty());
        Self {
            command: var("CNI_COMMAND"),
            container: var("CNI_CONTAINERID"),
            netns: var("CNI_NETNS"),
            interface: var("CNI_IFNAME"),
            args: var("CNI_ARGS"),
        }
    }

    /// The verb asked for.
    pub fn verb(&self) -> Result<Verb, Failure> {
        match self.command.as_deref() {
            Some("ADD") => Ok(Verb::Add),
            Some("DEL") => Ok(Verb::Del),
            Some("CHECK") => Ok(Verb::Check),
            Some("GC") => Ok(Verb::Gc),
            Some("STATUS") => Ok(Verb::Status),
            Some("VERSION") => Ok(Verb::Version),
            Some(other) => Err(wrong("CNI_COMMAND", format!("{other:?} is not a verb of CNI"))),
            None => Err(wrong("CNI_COMMAND", "is not set; this program is called by a container runtime")),
        }
    }

    /// CNI_CONTAINERID and CNI_IFNAME, checked by the specification's rules.
    pub fn attachment(&self) -> Result<AttachmentId, Failure> {
        let container = required("CNI_CONTAINERID", &self.container)?;
        let starts_well = container.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let reads_well = container.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !starts_well || !reads_well || container.len() > CONTAINER_BYTES_MAX {
            return Err(wrong("CNI_CONTAINERID", format!("{container:?} is not a container id")));
        }
        let interface = required("CNI_IFNAME", &self.interface)?;
        let forbidden = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b.is_ascii_control();
        if interface.len() > INTERFACE_BYTES_MAX
            || interface == "."
            || interface == ".."
            || interface.bytes().any(forbidden)
        {
            return Err(wrong("CNI_IFNAME", format!("{interface:?} is not a device name")));
        }
        Ok(AttachmentId { container: container.to_string(), interface: interface.to_string() })
    }

    /// CNI_NETNS.
    pub fn netns(&self) -> Result<String, Failure> {
        required("CNI_NETNS", &self.netns).map(str::to_string)
    }

    /// The pod named in CNI_ARGS (`K=V;K=V`). Unknown keys are ignored: the specification leaves them to us, and
    /// runtimes add new ones.
    pub fn pod(&self) -> PodName {
        let mut pod = PodName::default();
        for pair in self.args.as_deref().unwrap_or_default().split(';') {
            match pair.split_once('=') {
                Some(("K8S_POD_NAMESPACE", value)) => pod.namespace = value.to_string(),
                Some(("K8S_POD_NAME", value)) => pod.name = value.to_string(),
                Some(("K8S_POD_UID", value)) => pod.uid = value.to_string(),
                _ => {}
            }
        }
        pod
    }
}

fn required<'a>(name: &str, value: &'a Option<String>) -> Result<&'a str, Failure> {
    value.as_deref().ok_or_else(|| wrong(name, "is not set"))
}

fn wrong(name: &str, what: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidEnvironment, format!("{name}: {}", what.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &'static [(&'static str, &'static str)]) -> Environment {
        Environment::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn a_missing_variable_is_error_4_and_named() {
        let failure = environment(&[("CNI_COMMAND", "ADD")]).attachment().unwrap_err();
        assert_eq!(failure.code, Code::InvalidEnvironment);
        assert!(failure.message.contains("CNI_CONTAINERID"), "{failure}");
    }

    #[test]
    fn names_that_would_escape_a_path_or_the_kernel_are_refused() {
        for (container, interface) in [
            ("../x", "eth0"),
            ("-x", "eth0"),
            ("x", "a/b"),
            ("x", "sixteen-letters-"),
            ("x", ".."),
            ("x", "a b"),
        ] {
            let environment = Environment {
                container: Some(container.into()),
                interface: Some(interface.into()),
                ..Default::default()
            };
            assert!(environment.attachment().is_err(), "{container} {interface}");
        }
    }

    #[test]
    fn the_pod_is_read_from_the_arguments() {
        let pod = environment(&[(
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u",
        )])
        .pod();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()), ("a", "b", "u"));
    }
}
