//! From Ingresses and classes to a table. Pure.
//!
//! It exists to hold the API's rules about whose an Ingress is and who comes first when two claim the same path. It
//! must not know requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spec::{Backend, Class, Ingress, Name};
use crate::table::{Route, Table, Target};

/// The controller that IngressClasses name to be served here.
pub const CONTROLLER: &str = "penstock.io/ingress";
/// Sentences kept about what is not served as written; further ones are left out.
const PROBLEMS_MAX: usize = 100;

/// A table, and what a person should know about it.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The routes.
    pub table: Table,
    /// What could not be served as written, a sentence each, in the order of the Ingresses.
    pub problems: Vec<String>,
}

/// Compiles the Ingresses of our classes. Of two that claim the same host and path the older one has it, then the
/// one first in the alphabet; whatever is wrong with one Ingress, the routes of the others are as without it.
pub fn compile<'a>(
    ingresses: impl IntoIterator<Item = (&'a Name, &'a Ingress)>,
    classes: &BTreeMap<String, Class>,
) -> Compiled {
    let mut ours: Vec<_> = ingresses.into_iter().filter(|(_, ingress)| is_ours(ingress, classes)).collect();
    ours.sort_by_key(|(name, ingress)| (ingress.created_seconds, *name));

    let mut compiled = Compiled::default();
    for (name, ingress) in &ours {
        compiled.add(name, ingress);
    }
    // An Ingress with nothing but a default backend is meant for everything; others mean what they leave over.
    let by_meaning = |whole: bool| ours.iter().filter(move |(_, ingress)| ingress.rules.is_empty() == whole);
    compiled.table.default = by_meaning(true)
        .chain(by_meaning(false))
        .find_map(|(name, ingress)| Some(route(name, ingress.default_backend.as_ref()?)));
    compiled
}

/// Whether an Ingress is served here: its class is one of ours, or it has none and ours is the default.
fn is_ours(ingress: &Ingress, classes: &BTreeMap<String, Class>) -> bool {
    let ours = |class: &Class| class.controller == CONTROLLER;
    match &ingress.class {
        Some(class) => classes.get(class).is_some_and(ours),
        // With two controllers that both are the default, neither is: both would serve it.
        None => {
            let mut defaults = classes.values().filter(|class| class.is_default).peekable();
            defaults.peek().is_some() && defaults.all(ours)
        }
    }
}

fn route(ingress: &Name, backend: &Backend) -> Arc<Route> {
    let target = match backend {
        Backend::Service { name, port } => Target::Service {
            service: Name { namespace: ingress.namespace.clone(), name: name.clone() },
            port: port.clone(),
        },
        Backend::Resource { kind, name } => Target::Unsupported(format!("{kind} {name}")),
    };
    Arc::new(Route { ingress: ingress.clone(), target })
}

// === impl Compiled ===

impl Compiled {
    fn add(&mut self, name: &Name, ingress: &Ingress) {
        if ingress.asks_for_tls {
            self.note(|| {
                format!(
                    "Ingress {name} asks for TLS, which is not terminated here yet: it is served over HTTP"
                )
            });
        }
        let default = ingress.default_backend.as_ref().map(|backend| route(name, backend));
        for rule in &ingress.rules {
            let entry = self.table.host_entry(&rule.host);
            if entry.default.is_none() {
                entry.default = default.clone();
            }
            for path in &rule.paths {
                let route = route(name, &path.backend);
                if let Target::Unsupported(what) = &route.target {
                    self.note(|| {
                        format!("Ingress {name}: path {} leads to {what}, not to a Service", path.path)
                    });
                }
                if let Err(holder) = self.table.insert(&rule.host, path.kind, &path.path, route.clone())
                    && holder != route
                {
                    let (host, path) = (if rule.host.is_empty() { "*" } else { &rule.host }, &path.path);
                    self.note(|| {
                        format!(
                            "Ingress {name}: host {host} path {path} is already that of Ingress {}",
                            holder.ingress
                        )
                    });
                }
            }
        }
    }

    fn note(&mut self, sentence: impl FnOnce() -> String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(sentence());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Path, PathKind, Port, Rule};
    use crate::table::Decision;

    fn name(name: &str) -> Name {
        Name { namespace: "shop".into(), name: name.into() }
    }

    fn service(name: &str) -> Backend {
        Backend::Service { name: name.into(), port: Port::Number(80) }
    }

    fn rule(host: &str, path: &str, to: &str) -> Rule {
        let path = Path { kind: PathKind::Prefix, path: path.into(), backend: service(to) };
        Rule { host: host.into(), paths: vec![path] }
    }

    fn classes(of: &[(&str, &str, bool)]) -> BTreeMap<String, Class> {
        let class = |controller: &str, is_default| Class { controller: controller.into(), is_default };
        of.iter().map(|(name, controller, default)| (name.to_string(), class(controller, *default))).collect()
    }

    fn ours() -> BTreeMap<String, Class> {
        classes(&[("penstock", CONTROLLER, true)])
    }

    fn answer(compiled: &Compiled, host: &str, path: &str) -> String {
        match compiled.table.route(host, path) {
            Decision::To(route) => match &route.target {
                Target::Service { service, .. } => service.name.clone(),
                Target::Unsupported(what) => what.clone(),
            },
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_ingress_is_ours_by_its_class_or_by_default() {
        let named = |class: Option<&str>| Ingress { class: class.map(Into::into), ..Ingress::default() };
        let both = classes(&[("penstock", CONTROLLER, true), ("nginx", "k8s.io/ingress-nginx", false)]);
        assert!(is_ours(&named(Some("penstock")), &both));
        assert!(is_ours(&named(None), &both));
        assert!(!is_ours(&named(Some("nginx")), &both));
        assert!(!is_ours(&named(Some("unknown")), &both));
        assert!(!is_ours(&named(None), &classes(&[("penstock", CONTROLLER, false)])), "not the default");
        assert!(!is_ours(&named(None), &classes(&[])), "no class at all");
        let rivals = classes(&[("penstock", CONTROLLER, true), ("nginx", "k8s.io/ingress-nginx", true)]);
        assert!(!is_ours(&named(None), &rivals), "two defaults");
    }

    #[test]
    fn the_older_ingress_keeps_a_path_that_two_claim_and_the_other_is_told() {
        let older =
            Ingress { created_seconds: 1, rules: vec![rule("a.test", "/x", "older")], ..Ingress::default() };
        let both = vec![rule("A.test", "/x/", "younger"), rule("a.test", "/y", "younger")];
        let younger = Ingress { created_seconds: 2, rules: both, ..Ingress::default() };
        let compiled = compile([(&name("a-younger"), &younger), (&name("older"), &older)], &ours());
        assert_eq!(answer(&compiled, "a.test", "/x"), "older");
        assert_eq!(answer(&compiled, "a.test", "/y"), "younger", "its other routes are untouched");
        assert_eq!(
            compiled.problems,
            ["Ingress shop/a-younger: host A.test path /x/ is already that of Ingress shop/older"]
        );
    }

    #[test]
    fn a_default_backend_answers_for_its_own_hosts_before_that_of_others() {
        let whole =
            Ingress { default_backend: Some(service("whole")), created_seconds: 9, ..Ingress::default() };
        let host = Ingress {
            default_backend: Some(service("rest-of-a")),
            rules: vec![rule("a.test", "/x", "x"), Rule { host: "bare.test".into(), paths: vec![] }],
            ..Ingress::default()
        };
        let other = Ingress { rules: vec![rule("b.test", "/x", "b")], ..Ingress::default() };
        let all = [(&name("whole"), &whole), (&name("host"), &host), (&name("other"), &other)];
        let compiled = compile(all, &ours());
        assert_eq!(answer(&compiled, "a.test", "/x"), "x");
        assert_eq!(answer(&compiled, "a.test", "/z"), "rest-of-a");
        assert_eq!(answer(&compiled, "bare.test", "/z"), "rest-of-a");
        assert_eq!(answer(&compiled, "b.test", "/z"), "whole");
        assert_eq!(answer(&compiled, "c.test", "/z"), "whole");
    }

    #[test]
    fn an_ingress_of_another_class_leaves_no_trace() {
        let theirs = Ingress {
            class: Some("nginx".into()),
            default_backend: Some(service("theirs")),
            rules: vec![rule("", "/", "theirs")],
            ..Ingress::default()
        };
        let compiled = compile([(&name("theirs"), &theirs)], &ours());
        assert!(compiled.table.is_empty());
        assert_eq!(answer(&compiled, "a.test", "/"), "NoHost");
    }

    #[test]
    fn a_backend_that_is_no_service_is_kept_in_words() {
        let path = Path {
            kind: PathKind::Exact,
            path: "/icons".into(),
            backend: Backend::Resource { kind: "StorageBucket".into(), name: "icons".into() },
        };
        let rules = vec![Rule { host: String::new(), paths: vec![path] }];
        let compiled = compile([(&name("a"), &Ingress { rules, ..Ingress::default() })], &ours());
        assert_eq!(answer(&compiled, "a.test", "/icons"), "StorageBucket icons");
        assert_eq!(compiled.problems.len(), 1);
    }
}
