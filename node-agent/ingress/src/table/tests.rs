//! The table against the API's documented matches, and against a plain model of them.

use proptest::prelude::*;

use super::*;
use crate::spec::Name;

fn table(of: &[(&str, PathKind, &str)]) -> Table {
    let mut table = Table::default();
    for (i, (host, kind, path)) in of.iter().enumerate() {
        let route = Route {
            ingress: Name { namespace: "a".into(), name: i.to_string() },
            target: Target::Unsupported(String::new()),
        };
        // The first of two has it; the model says so too.
        let _ = table.insert(host, *kind, path, Arc::new(route));
    }
    table
}

/// The number of the rule a request goes to.
fn ask(table: &Table, host: &str, path: &str) -> Option<usize> {
    match table.route(host, path) {
        Decision::To(route) => route.ingress.name.parse().ok(),
        Decision::NoHost | Decision::NoPath => None,
    }
}

#[test]
fn paths_match_as_the_api_documents() {
    use PathKind::{Exact, Prefix};
    // https://kubernetes.io/docs/concepts/services-networking/ingress/#examples
    for (kind, path, request, matches) in [
        (Prefix, "/", "/any/path", true),
        (Exact, "/foo", "/foo", true),
        (Exact, "/foo", "/bar", false),
        (Exact, "/foo", "/foo/", false),
        (Exact, "/foo/", "/foo", false),
        (Prefix, "/foo", "/foo", true),
        (Prefix, "/foo", "/foo/", true),
        (Prefix, "/foo/", "/foo", true),
        (Prefix, "/foo/", "/foo/", true),
        (Prefix, "/aaa/bb", "/aaa/bbb", false),
        (Prefix, "/aaa/bbb", "/aaa/bbb", true),
        (Prefix, "/aaa/bbb/", "/aaa/bbb", true),
        (Prefix, "/aaa/bbb", "/aaa/bbb/", true),
        (Prefix, "/aaa/bbb", "/aaa/bbb/ccc", true),
        (Prefix, "/aaa/bbb", "/aaa/bbbxyz", false),
        (Prefix, "/foo", "/FOO", false),
        (Prefix, "", "/x", true),
    ] {
        let found = ask(&table(&[("", kind, path)]), "a.test", request);
        assert_eq!(found.is_some(), matches, "{kind:?} {path} for {request}");
    }
}

#[test]
fn the_longest_path_wins_and_exact_beats_prefix() {
    use PathKind::{Exact, Prefix};
    let table = table(&[("", Prefix, "/"), ("", Prefix, "/aaa"), ("", Prefix, "/foo"), ("", Exact, "/foo")]);
    assert_eq!(ask(&table, "", "/aaa/ccc"), Some(1));
    assert_eq!(ask(&table, "", "/ccc"), Some(0));
    assert_eq!(ask(&table, "", "/foo"), Some(3));
    assert_eq!(ask(&table, "", "/foo/x"), Some(2));
}

#[test]
fn an_exact_host_beats_a_wildcard_and_that_beats_none() {
    let prefix = PathKind::Prefix;
    let table = table(&[("", prefix, "/"), ("*.foo.com", prefix, "/"), ("bar.foo.com", prefix, "/bar")]);
    assert_eq!(ask(&table, "bar.foo.com", "/bar"), Some(2));
    assert_eq!(ask(&table, "baz.foo.com", "/bar"), Some(1));
    assert_eq!(ask(&table, "foo.com", "/"), Some(0), "the star is a label");
    assert_eq!(ask(&table, "baz.bar.foo.com", "/"), Some(0), "the star is one label");
    assert_eq!(table.route("bar.foo.com", "/"), Decision::NoPath, "another host's paths are not its own");
}

#[test]
fn the_host_header_is_read_without_port_case_and_final_dot() {
    let table = table(&[("a.test", PathKind::Prefix, "/")]);
    for host in ["a.test", "A.Test", "a.test:8080", "a.test.", "a.test.:80"] {
        assert_eq!(ask(&table, host, "/"), Some(0), "{host}");
    }
    for host in ["", ":", "[", "[::1]:80", ".a.test", "b.test", "a.test.."] {
        assert_eq!(ask(&table, host, "/"), None, "{host}");
    }
}

/// The rules read one by one, as the API's text puts it.
fn model(rules: &[(&str, PathKind, &str)], host: &str, path: &str) -> Option<usize> {
    let rank = |pattern: &str| match pattern.strip_prefix("*.") {
        _ if pattern == host => Some(2),
        _ if pattern.is_empty() => Some(0),
        Some(domain) => {
            let labels: Vec<&str> = host.split('.').collect();
            (labels.len() > 1 && !labels[0].is_empty() && labels[1..].join(".") == domain).then_some(1)
        }
        None => None,
    };
    let best = rules.iter().filter_map(|(pattern, ..)| rank(pattern)).max()?;
    let matching = rules.iter().enumerate().filter_map(|(i, (pattern, kind, rule))| {
        let wanted: Vec<&str> = rule.trim_end_matches('/').split('/').collect();
        let given: Vec<&str> = path.split('/').collect();
        let (hit, exact) = match kind {
            PathKind::Exact => (*rule == path, true),
            PathKind::Prefix => (given.starts_with(&wanted), false),
        };
        (rank(pattern) == Some(best) && hit).then_some((exact, wanted.len(), std::cmp::Reverse(i)))
    });
    matching.max().map(|(_, _, std::cmp::Reverse(i))| i)
}

fn a_path() -> impl Strategy<Value = String> {
    let element = prop::sample::select(vec!["a", "aa", "b", "é"]);
    (prop::collection::vec(element, 0..4), any::<bool>()).prop_map(|(elements, slash)| {
        let path = format!("/{}", elements.join("/"));
        if slash && path.len() > 1 { path + "/" } else { path }
    })
}

proptest! {
    #[test]
    fn the_table_decides_as_the_rules_read_one_by_one(
        rules in prop::collection::vec((
            prop::sample::select(vec!["", "x.test", "*.test", "y.x.test", "*.x.test"]),
            prop::sample::select(vec![PathKind::Exact, PathKind::Prefix]),
            a_path(),
        ), 0..12),
        host in prop::sample::select(vec!["", "test", "x.test", "z.test", "y.x.test", "z.x.test", ".test"]),
        path in a_path(),
    ) {
        let rules: Vec<_> = rules.iter().map(|(host, kind, path)| (*host, *kind, path.as_str())).collect();
        prop_assert_eq!(ask(&table(&rules), host, &path), model(&rules, host, &path));
    }

    #[test]
    fn no_host_and_no_path_makes_it_panic(host in ".{0,20}", path in ".{0,40}") {
        let table = table(&[("x.test", PathKind::Prefix, "/a/b"), ("", PathKind::Prefix, "/é/b")]);
        table.route(&host, &path);
    }
}
