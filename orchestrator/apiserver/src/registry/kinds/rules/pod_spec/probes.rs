//! How a container is asked whether it lives, and what is told to it: probes and hooks share their handlers.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, within};
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::object::{items_at, str_at};

const OF_PROBE: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const OF_HOOK: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

const NUMBERS: &[Rule] = &[
    at("initialDelaySeconds", NOT_BELOW_ZERO),
    at("timeoutSeconds", NOT_BELOW_ZERO),
    at("periodSeconds", NOT_BELOW_ZERO),
    at("successThreshold", NOT_BELOW_ZERO),
    at("failureThreshold", NOT_BELOW_ZERO),
];

const HANDLERS: &[(&str, &[Rule])] = &[
    ("exec", &[at("command", Check::Required(""))]),
    (
        "httpGet",
        &[
            at("port", Check::Given("")),
            at("port", Check::Port),
            at("scheme", Check::OneOf(&["HTTP", "HTTPS"])),
            within("", &[at("", Check::Judge(headers))]),
        ],
    ),
    ("tcpSocket", &[at("port", Check::Given("")), at("port", Check::Port)]),
    ("grpc", &[at("port", Check::Given("")), at("port", Check::Port)]),
];

/// Every probe of a container.
pub(super) fn validate(container: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for which in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[which];
        if probe.is_null() {
            continue;
        }
        let at = format!("{path}.{which}");
        handler(probe, None, OF_PROBE, &at, errors);
        field_rules::judge(NUMBERS, probe, &at, errors);
        let grace = &probe["terminationGracePeriodSeconds"];
        let grace_at = format!("{at}.terminationGracePeriodSeconds");
        if grace.as_i64().is_some_and(|n| n <= 0) {
            errors.push(FieldError::invalid(grace_at.as_str(), grace.clone(), "must be greater than 0"));
        }
        if which == "readinessProbe" {
            if !grace.is_null() {
                errors.push(FieldError::invalid(
                    grace_at,
                    grace.clone(),
                    "must not be set for readinessProbes",
                ));
            }
        } else if let Some(n) = probe["successThreshold"].as_i64()
            && n != 1
        {
            errors.push(FieldError::invalid(format!("{at}.successThreshold"), n, "must be 1"));
        }
    }
}

/// `lifecycle` of a container in a pod with this grace and operating system.
pub(super) fn lifecycle(
    hooks: &Value,
    grace_seconds: Option<i64>,
    os: Option<&str>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    for hook in ["postStart", "preStop"] {
        if !hooks[hook].is_null() {
            handler(&hooks[hook], grace_seconds, OF_HOOK, &format!("{path}.{hook}"), errors);
        }
    }
    let Some(signal) = hooks["stopSignal"].as_str() else { return };
    let at = format!("{path}.stopSignal");
    match os {
        None => {
            errors.push(FieldError::forbidden(at, "may not be set for containers with empty `spec.os.name`"));
        }
        Some("windows") if !["SIGKILL", "SIGTERM"].contains(&signal) => {
            errors.push(FieldError::not_supported(at, signal, &["SIGKILL", "SIGTERM"]));
        }
        Some("linux") if !is_signal(signal) => errors.push(FieldError::not_supported(at, signal, SIGNALS)),
        Some(_) => {}
    }
}

const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// A signal by name; real-time ones also counted from either end.
fn is_signal(name: &str) -> bool {
    let counted = |rest: Option<&str>, max: u32| {
        rest.is_some_and(|it| !it.starts_with('0') && it.parse::<u32>().is_ok_and(|n| (1..=max).contains(&n)))
    };
    SIGNALS.contains(&name)
        || counted(name.strip_prefix("SIGRTMIN+"), 15)
        || counted(name.strip_prefix("SIGRTMAX-"), 14)
}

fn handler(
    value: &Value,
    grace_seconds: Option<i64>,
    kinds: &[&str],
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let mut given = kinds.iter().filter(|kind| !value[**kind].is_null());
    let Some(first) = given.next() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    for more in given {
        errors.push(FieldError::forbidden(
            format!("{path}.{more}"),
            "may not specify more than 1 handler type",
        ));
    }
    if let Some((_, rules)) = HANDLERS.iter().find(|(kind, _)| kind == first) {
        field_rules::judge(rules, &value[*first], &format!("{path}.{first}"), errors);
    }
    let seconds = value[*first]["seconds"].as_i64().unwrap_or(0);
    if *first == "sleep"
        && let Some(grace) = grace_seconds.filter(|grace| !(0..=*grace).contains(&seconds))
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(format!("{path}.sleep"), seconds, why));
    }
}

fn headers(get: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for header in items_at(get, "/httpHeaders") {
        let name = str_at(header, "/name");
        let good = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if !good {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(format!("{path}.httpHeaders"), name, why));
        }
    }
}
