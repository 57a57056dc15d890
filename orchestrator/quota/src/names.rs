//! The names a quota can hold an amount for, and the resource whose objects use it.

use penstock_schema::Quantity;

/// What dimension a storage class has of its own: `gold.storageclass.storage.k8s.io/requests.storage`.
const OF_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const REQUESTS: &str = "requests.";
const COUNT: &str = "count/";

const OF_PODS: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const OF_SERVICES: &[&str] = &["services", "services.loadbalancers", "services.nodeports"];
const OF_CLAIMS: &[&str] = &["persistentvolumeclaims", "requests.storage"];
/// Counted by their plural alone, from before there was `count/`.
const COUNTED: &[&str] = &["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// A resource whose objects use quota.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measured {
    pub group: String,
    pub plural: String,
}

impl Measured {
    pub fn new(group: &str, plural: &str) -> Self {
        Self { group: group.to_owned(), plural: plural.to_owned() }
    }

    /// Whose objects use what the name stands for; `None` if nothing does.
    pub fn by_name(name: &str) -> Option<Self> {
        if let Some(resource) = name.strip_prefix(COUNT) {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            return Some(Self::new(group, plural));
        }
        let core = |plural: &str| Some(Self::new("", plural));
        match name {
            _ if OF_PODS.contains(&name) || is_huge_page(name) || is_extended(name) => core("pods"),
            _ if OF_SERVICES.contains(&name) => core("services"),
            _ if OF_CLAIMS.contains(&name) || class_part(name).is_some() => core("persistentvolumeclaims"),
            _ if COUNTED.contains(&name) => core(name),
            _ => None,
        }
    }

    /// Whether quotas leave the resource alone: what is not stored, and notes about other objects.
    pub fn is_ignored(&self) -> bool {
        match &*self.group {
            "" => matches!(&*self.plural, "bindings" | "componentstatuses" | "events"),
            "events.k8s.io" => self.plural == "events",
            "authentication.k8s.io" | "authorization.k8s.io" => true,
            _ => false,
        }
    }

    /// Names that count each object of the resource as one.
    pub(crate) fn counters(&self) -> Vec<String> {
        let dot = if self.group.is_empty() { "" } else { "." };
        let mut names = vec![format!("{COUNT}{}{dot}{}", self.plural, self.group)];
        if self.group.is_empty() && COUNTED.contains(&&*self.plural) {
            names.push(self.plural.clone());
        }
        names
    }
}

/// Whether a name without a domain is one that quotas know.
pub fn is_name(name: &str) -> bool {
    is_huge_page(name) || [OF_PODS, OF_SERVICES, OF_CLAIMS, COUNTED].iter().any(|names| names.contains(&name))
}

/// Whether amounts of it are whole.
pub fn is_integer(name: &str, amount: Quantity) -> bool {
    let counted = name == "pods"
        || OF_SERVICES.contains(&name)
        || COUNTED.contains(&name)
        || name == "persistentvolumeclaims"
        || (name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with(REQUESTS));
    !counted || amount == amount.rounded_up()
}

/// What of a storage class a name stands for.
fn class_part(name: &str) -> Option<&str> {
    let (_, part) = name.split_once(OF_STORAGE_CLASS)?;
    OF_CLAIMS.contains(&part).then_some(part)
}

/// The name of what a claim uses of its storage class.
pub(crate) fn of_class(class: &str, part: &str) -> String {
    format!("{class}{OF_STORAGE_CLASS}{part}")
}

/// `hugepages-2Mi`, which can be asked for as `requests.hugepages-2Mi` too.
pub(crate) fn is_huge_page(name: &str) -> bool {
    name.strip_prefix(REQUESTS).unwrap_or(name).starts_with("hugepages-")
}

/// `requests.example.com/gpu`: what nodes offer beside Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let foreign = name.contains('/') && !name.contains("kubernetes.io/");
    let of_devices = name.starts_with("requests.deviceclass.resource.kubernetes.io/");
    name.starts_with(REQUESTS) && (foreign || of_devices) && class_part(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whose_objects_use_it() {
        let of = |name: &str| Measured::by_name(name).map(|m| (m.group, m.plural));
        let core = |plural: &str| Some((String::new(), plural.to_owned()));
        for name in ["pods", "cpu", "limits.memory", "requests.hugepages-2Mi", "requests.example.com/gpu"] {
            assert_eq!(of(name), core("pods"), "{name}");
        }
        assert_eq!(of("services.nodeports"), core("services"));
        assert_eq!(of("gold.storageclass.storage.k8s.io/requests.storage"), core("persistentvolumeclaims"));
        assert_eq!(of("count/deployments.apps"), Some(("apps".into(), "deployments".into())));
        assert_eq!(of("count/secrets"), core("secrets"));
        assert_eq!(of("secrets"), core("secrets"));
        assert_eq!(of("example.com/gpu"), None, "it is named by what is requested of it");
        assert_eq!(of("gold.storageclass.storage.k8s.io/other"), None);
    }
}
