//! Pod affinity terms, compiled: which pods a term means, and over which topology.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use penstock_informers::Meta;
use penstock_informers::selector::Selector;

type NamespaceLabels = std::collections::HashMap<String, BTreeMap<String, String>>;

/// A compiled term.
#[derive(Clone, Debug)]
pub struct Term {
    pub topology_key: String,
    pods: Selector,
    namespaces: Vec<String>,
    namespace_selector: Selector,
}

impl Term {
    /// From the API's form; `owner` is the pod the term is written on.
    pub fn new(owner: &Pod, term: &PodAffinityTerm) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(owner.ns().to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            pods: Selector::from_label_selector(term.label_selector.as_ref()),
            namespaces,
            namespace_selector: Selector::from_label_selector(term.namespace_selector.as_ref()),
        }
    }

    /// Whether the term means this pod.
    pub fn means(&self, pod: &Pod, namespace_labels: &NamespaceLabels) -> bool {
        let in_namespace = self.namespaces.iter().any(|n| n == pod.ns())
            || (self.namespace_selector != Selector::Nothing
                && self.namespace_selector.matches(namespace_labels.get(pod.ns())));
        in_namespace && self.pods.matches(pod.metadata.labels.as_ref())
    }
}

fn compile(owner: &Pod, terms: Option<&Vec<PodAffinityTerm>>) -> Vec<Term> {
    terms.into_iter().flatten().map(|t| Term::new(owner, t)).collect()
}

fn compile_weighted(owner: &Pod, terms: Option<&Vec<WeightedPodAffinityTerm>>) -> Vec<(Term, i64)> {
    let terms = terms.into_iter().flatten();
    terms.map(|t| (Term::new(owner, &t.pod_affinity_term), i64::from(t.weight))).collect()
}

/// The affinity a pod states.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    /// Preferences with weights; negative for anti-affinity.
    pub preferred: Vec<(Term, i64)>,
}

impl Terms {
    /// Whether the pod states anything at all, without compiling it.
    pub fn any(pod: &Pod) -> bool {
        let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
        affinity.is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some())
    }

    /// All terms of a pod.
    pub fn of(pod: &Pod) -> Self {
        let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else {
            return Self::default();
        };
        let (with, against) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let with_required = with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let against_required =
            against.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let with_preferred =
            with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let against_preferred =
            against.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let mut preferred = compile_weighted(pod, with_preferred);
        preferred.extend(compile_weighted(pod, against_preferred).into_iter().map(|(t, w)| (t, -w)));
        Self {
            affinity: compile(pod, with_required),
            anti_affinity: compile(pod, against_required),
            preferred,
        }
    }
}
