//! What a namespace's labels say: standards to enforce, to warn by and to tell auditors of, each in a version of
//! Kubernetes.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::FieldError;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// From the least to the most strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// The minor version of Kubernetes whose rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    #[default]
    Latest,
    Minor(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

/// The policy, and what of the labels is none. An enforced level that cannot be read is the strictest one.
pub fn of_labels(labels: &BTreeMap<String, String>) -> (Policy, Vec<FieldError>) {
    let mut errors = Vec::new();
    let enforce = read(labels, "enforce", Level::Restricted, &mut errors);
    let audit = read(labels, "audit", Level::Privileged, &mut errors);
    let said = |name: &str| labels.contains_key(&format!("{PREFIX}{name}"));
    let mut warn = read(labels, "warn", Level::Privileged, &mut errors);
    let enforce_is_read = labels.get(&format!("{PREFIX}enforce")).is_some_and(|text| level(text).is_some());
    if !said("warn") && enforce_is_read && enforce.level > warn.level {
        warn.level = enforce.level;
        if !said("warn-version") {
            warn.version = enforce.version;
        }
    }
    (Policy { enforce, audit, warn }, errors)
}

fn read(
    labels: &BTreeMap<String, String>,
    mode: &str,
    when_unreadable: Level,
    errors: &mut Vec<FieldError>,
) -> Standard {
    let mut standard = Standard::default();
    let mut refuse = |label: &str, text: &str, why: &str| {
        errors.push(FieldError::invalid(format!("metadata.labels[{label}]"), text, why));
    };
    let (for_level, for_version) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
    if let Some(text) = labels.get(&for_level) {
        standard.level = level(text).unwrap_or_else(|| {
            refuse(&for_level, text, "must be one of privileged, baseline, restricted");
            when_unreadable
        });
    }
    if let Some(text) = labels.get(&for_version) {
        standard.version = version(text).unwrap_or_else(|| {
            refuse(&for_version, text, "must be \"latest\" or \"v1.x\"");
            Version::Latest
        });
    }
    standard
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let minor = text.strip_prefix("v1.")?;
    let canonical = minor == "0" || (!minor.starts_with('0') && minor.bytes().all(|b| b.is_ascii_digit()));
    canonical.then(|| minor.parse().ok())?.map(Version::Minor)
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> (String, String, Vec<String>) {
        let labels =
            labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        let (policy, errors) = of_labels(&labels);
        let errors = errors.iter().map(|e| e.body()).collect();
        (policy.enforce.to_string(), policy.warn.to_string(), errors)
    }

    #[test]
    fn what_is_enforced_is_warned_about_unless_labels_say_otherwise() {
        assert_eq!(of(&[]), ("privileged:latest".into(), "privileged:latest".into(), vec![]));
        let enforced = of(&[("enforce", "baseline"), ("enforce-version", "v1.30")]);
        assert_eq!((&*enforced.0, &*enforced.1), ("baseline:v1.30", "baseline:v1.30"));
        let both = of(&[("enforce", "baseline"), ("warn", "restricted"), ("warn-version", "latest")]);
        assert_eq!((&*both.0, &*both.1), ("baseline:latest", "restricted:latest"));
    }

    #[test]
    fn labels_of_nonsense_are_named_and_enforced_strictly() {
        let (enforce, warn, errors) =
            of(&[("enforce", "lax"), ("audit-version", "1.30"), ("warn-version", "v1.01")]);
        assert_eq!((&*enforce, &*warn), ("restricted:latest", "privileged:latest"));
        assert_eq!(errors.len(), 3, "{errors:?}");
    }
}
