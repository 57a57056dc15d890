//! The standards as a table: what is looked at on which level, since which version.

use super::policy::{Level, Standard, Version};
use super::subject::{Finding, Subject};
use super::{baseline as b, restricted as r};

type Look = fn(&Subject<'_>) -> Option<Finding>;

/// One thing that is looked at.
struct Check {
    id: &'static str,
    level: Level,
    /// The minor version this look came with; of several under one id the newest counts.
    since: u32,
    look: Look,
}

const fn baseline(id: &'static str, since: u32, look: Look) -> Check {
    Check { id, level: Level::Baseline, since, look }
}

const fn restricted(id: &'static str, since: u32, look: Look) -> Check {
    Check { id, level: Level::Restricted, since, look }
}

/// By level and id, which is the order findings are told in.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", 0, b::app_armor),
    baseline("capabilities", 0, b::capabilities),
    baseline("hostNamespaces", 0, b::host_namespaces),
    baseline("hostPathVolumes", 0, b::host_paths),
    baseline("hostPorts", 0, b::host_ports),
    baseline("hostProbesAndHostLifecycle", 34, b::probed_hosts),
    baseline("privileged", 0, b::privileged),
    baseline("procMount", 0, b::proc_mount),
    baseline("procMount", 35, b::proc_mount_of_own_users),
    baseline("seLinuxOptions", 0, b::selinux_1_0),
    baseline("seLinuxOptions", 31, b::selinux_1_31),
    baseline("seccompProfile", 0, b::seccomp_annotations),
    baseline("seccompProfile", 19, b::seccomp),
    baseline("sysctls", 0, b::sysctls_1_0),
    baseline("sysctls", 27, b::sysctls_1_27),
    baseline("sysctls", 29, b::sysctls_1_29),
    baseline("sysctls", 32, b::sysctls_1_32),
    baseline("windowsHostProcess", 0, b::host_process),
    restricted("allowPrivilegeEscalation", 8, r::escalation),
    restricted("allowPrivilegeEscalation", 25, r::escalation_not_on_windows),
    restricted("capabilities_restricted", 22, r::capabilities),
    restricted("capabilities_restricted", 25, r::capabilities_not_on_windows),
    restricted("procMount_restricted", 35, b::proc_mount),
    restricted("restrictedVolumes", 0, r::volumes),
    restricted("runAsNonRoot", 0, r::non_root),
    restricted("runAsNonRoot", 35, r::non_root_without_own_users),
    restricted("runAsUser", 23, r::user),
    restricted("runAsUser", 35, r::user_without_own_users),
    restricted("seccompProfile_restricted", 19, r::seccomp),
    restricted("seccompProfile_restricted", 25, r::seccomp_not_on_windows),
];

/// Restricted looks that say all that a baseline look would.
const INSTEAD_OF: &[(&str, &str)] = &[
    ("capabilities_restricted", "capabilities"),
    ("procMount_restricted", "procMount"),
    ("restrictedVolumes", "hostPathVolumes"),
    ("seccompProfile_restricted", "seccompProfile"),
];

/// All that is wrong with a pod by a standard.
#[derive(Debug)]
pub struct Broken(Vec<Finding>);

impl Broken {
    pub fn reasons(&self) -> String {
        let each: Vec<&str> = self.0.iter().map(|finding| &*finding.reason).collect();
        each.join(", ")
    }

    /// With what is to be changed.
    pub fn detail(&self) -> String {
        let each = self.0.iter().map(|Finding { reason, detail }| match &**detail {
            "" => reason.clone(),
            detail => format!("{reason} ({detail})"),
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

/// `None` if the pod keeps to the standard.
pub fn judge(standard: Standard, subject: &Subject<'_>) -> Option<Broken> {
    let version = match standard.version {
        Version::Latest => u32::MAX,
        Version::Minor(minor) => minor,
    };
    let known = || CHECKS.iter().filter(|check| check.since <= version && check.level <= standard.level);
    let is_newest = |check: &&Check| !known().any(|other| other.id == check.id && other.since > check.since);
    let is_replaced =
        |id: &str| INSTEAD_OF.iter().any(|(new, old)| *old == id && known().any(|it| it.id == *new));
    let looks = known().filter(is_newest).filter(|check| !is_replaced(check.id));
    let findings: Vec<Finding> = looks.filter_map(|check| (check.look)(subject)).collect();
    (!findings.is_empty()).then_some(Broken(findings))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(level: Level, minor: Option<u32>, spec: &Value) -> Option<String> {
        let version = minor.map_or(Version::Latest, Version::Minor);
        let metadata = json!({});
        judge(Standard { level, version }, &Subject { metadata: &metadata, spec })
            .map(|broken| broken.detail())
    }

    #[test]
    fn a_plain_pod_is_baseline_and_told_what_makes_it_restricted() {
        let mut spec = json!({"containers": [{"name": "c"}]});
        assert_eq!(told(Level::Baseline, None, &spec), None);
        assert_eq!(
            told(Level::Restricted, None, &spec).as_deref(),
            Some(
                "allowPrivilegeEscalation != false (container \"c\" must set \
                 securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
                 securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
                 securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
                 securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
            )
        );
        spec["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        spec["containers"][0]["securityContext"] = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
        assert_eq!(told(Level::Restricted, None, &spec), None);
        spec["containers"][0]["securityContext"]["runAsUser"] = 0.into();
        let told = told(Level::Restricted, None, &spec);
        assert_eq!(told.as_deref(), Some("runAsUser=0 (container \"c\" must not set runAsUser=0)"));
    }

    #[test]
    fn what_reaches_the_node_is_beyond_the_baseline() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true,
            "securityContext": {"sysctls": [{"name": "kernel.msgmax"}], "seLinuxOptions": {"type": "x_t", "user": "u"}},
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
            "initContainers": [{"name": "i", "securityContext": {"privileged": true, "procMount": "Unmasked"}}],
            "containers": [{
                "name": "c", "ports": [{"hostPort": 80}],
                "livenessProbe": {"tcpSocket": {"host": "10.0.0.1"}},
                "securityContext": {
                    "capabilities": {"add": ["SYS_ADMIN", "CHOWN"]},
                    "seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Unconfined"},
                    "windowsOptions": {"hostProcess": true},
                },
            }],
        });
        let all = told(Level::Baseline, None, &spec).unwrap();
        for part in [
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
            "host namespaces (hostNetwork=true, hostPID=true)",
            "hostPath volumes (volume \"v\")",
            "hostPort (container \"c\" uses hostPort 80)",
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
            "privileged (container \"i\" must not set securityContext.privileged=true)",
            "procMount (container \"i\" must not set securityContext.procMount to \"Unmasked\")",
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x_t\"; user may not be set)",
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            "forbidden sysctls (kernel.msgmax)",
            "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
        ] {
            assert!(all.contains(part), "{part} is not in {all}");
        }
        assert!(!told(Level::Baseline, Some(33), &spec).unwrap().contains("lifecycle"), "it came with 1.34");
        assert_eq!(told(Level::Privileged, None, &spec), None);
        let strict = told(Level::Restricted, None, &spec).unwrap();
        assert!(
            strict
                .contains("restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")")
        );
        assert!(!strict.contains("hostPath volumes"), "said once: {strict}");
    }

    #[test]
    fn a_pod_with_users_of_its_own_may_be_root() {
        let spec = json!({"hostUsers": false, "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsUser": 0,
            "seccompProfile": {"type": "Localhost"},
        }}]});
        assert_eq!(told(Level::Restricted, None, &spec), None);
        assert!(told(Level::Restricted, Some(34), &spec).unwrap().contains("runAsNonRoot != true"));
    }
}
