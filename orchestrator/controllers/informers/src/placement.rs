//! What lets a pod onto a node or keeps it off, as far as more than one loop must agree on it: taints and
//! tolerations, node selectors and node affinity. The scheduler filters with it, the DaemonSet controller and
//! node eviction decide with it. Pure.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration};

use crate::Meta;
use crate::selector::Requirement;

/// Whether the toleration covers the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = text(&toleration.key);
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let (mine, theirs) = (text(&toleration.value), text(&taint.value));
    let numbers = || Some((theirs.parse::<i64>().ok()?, mine.parse::<i64>().ok()?));
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => mine == theirs && key == taint.key,
        Some("Lt") => numbers().is_some_and(|(theirs, mine)| theirs < mine),
        Some("Gt") => numbers().is_some_and(|(theirs, mine)| theirs > mine),
        Some(_) => false,
    }
}

/// The first taint with one of these effects that nothing tolerates.
pub fn untolerated<'a>(
    taints: impl IntoIterator<Item = &'a Taint>,
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    taints.into_iter().find(|taint| {
        effects.contains(&taint.effect.as_str()) && !tolerations.iter().any(|t| tolerates(t, taint))
    })
}

/// The pod's tolerations.
pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

/// Whether a node fits the pod's `nodeSelector` and required node affinity.
pub fn node_affinity_holds(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selected = spec.node_selector.iter().flatten();
    if !selected.into_iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| node_selector_matches(selector, node))
}

/// Whether any term of the selector matches.
pub fn node_selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| node_term_matches(term, node))
}

/// Whether all requirements of a term hold; an empty term matches nothing.
pub fn node_term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = expressions.iter().all(|e| {
        let value = node.metadata.labels.as_ref().and_then(|l| l.get(&e.key)).map(String::as_str);
        Requirement::new(&e.key, &e.operator, e.values.as_ref()).holds(value)
    });
    labels
        && fields.iter().all(|e| {
            // metadata.name is the only field the API allows here.
            let value = (e.key == "metadata.name").then(|| node.name());
            Requirement::new(&e.key, &e.operator, e.values.as_ref()).holds(value)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeSelectorRequirement;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        Toleration {
            key: text(key),
            operator: text(operator),
            value: text(value),
            effect: text(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_cover_taints_as_the_api_defines_them() {
        let taint =
            Taint { key: "k".into(), value: Some("5".into()), effect: "NoSchedule".into(), time_added: None };
        for (key, operator, value, effect, expected) in [
            ("k", "Equal", "5", "NoSchedule", true),
            ("k", "", "5", "", true),
            ("k", "Equal", "6", "", false),
            ("k", "Exists", "", "NoExecute", false),
            ("", "Exists", "", "", true),
            ("", "Equal", "5", "", false),
            ("other", "Exists", "", "", false),
            ("k", "Lt", "6", "", true),
            ("k", "Gt", "6", "", false),
            ("k", "Near", "5", "", false),
        ] {
            let got = tolerates(&toleration(key, operator, value, effect), &taint);
            assert_eq!(got, expected, "{key} {operator} {value} {effect}");
        }
    }

    #[test]
    fn an_empty_term_matches_nothing_and_names_match_as_a_field() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        assert!(!node_term_matches(&NodeSelectorTerm::default(), &node));
        let by_name = NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec!["n1".into()]),
            }]),
            match_expressions: None,
        };
        assert!(node_term_matches(&by_name, &node));
    }
}
