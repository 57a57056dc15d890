//! What each of Kubernetes' controllers may do: the role `system:controller:NAME`, bound to the service account NAME of
//! `kube-system`.
//!
//! Our own controllers run in the control plane and need none of them; a kube-controller-manager with
//! `--use-service-account-credentials` does.

use super::access::{EVENTS, NamedRule, READ, Rule};

/// Controllers and their rules.
pub(super) const CONTROLLERS: &[(&str, &[Rule])] = &[
    (
        "attachdetach-controller",
        &[
            ("core", "persistentvolumeclaims persistentvolumes", "list watch"),
            ("core", "nodes", READ),
            ("core", "nodes/status", "patch update"),
            ("core", "pods", "list watch"),
            EVENTS,
            ("storage.k8s.io", "volumeattachments", "create delete get list watch"),
            ("storage.k8s.io", "csidrivers", READ),
            ("storage.k8s.io", "csinodes", READ),
        ],
    ),
    (
        "certificate-controller",
        &[
            ("certificates.k8s.io", "certificatesigningrequests", "delete get list watch"),
            (
                "certificates.k8s.io",
                "certificatesigningrequests/approval certificatesigningrequests/status",
                "update",
            ),
            ("authorization.k8s.io", "subjectaccessreviews", "create"),
            EVENTS,
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[("rbac.authorization.k8s.io", "clusterroles", "escalate get list patch update watch")],
    ),
    (
        "cronjob-controller",
        &[
            ("batch", "cronjobs", "get list update watch"),
            ("batch", "jobs", "create delete get list patch update watch"),
            ("batch", "cronjobs/status", "update"),
            ("batch", "cronjobs/finalizers", "update"),
            ("core", "pods", "delete list watch"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            ("apps", "daemonsets", READ),
            ("apps", "daemonsets/status", "update"),
            ("apps", "daemonsets/finalizers", "update"),
            ("core", "nodes", "list watch"),
            ("core", "pods", "create delete list patch watch"),
            ("core", "pods/binding", "create"),
            ("apps", "controllerrevisions", "create delete get list patch update watch"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            ("apps", "deployments", "get list update watch"),
            ("apps", "deployments/status", "update"),
            ("apps", "deployments/finalizers", "update"),
            ("apps", "replicasets", "create delete get list patch update watch"),
            ("core", "pods", "get list update watch"),
            EVENTS,
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            ("core", "pods", "delete get list watch"),
            ("core", "pods/status", "patch update"),
            ("resource.k8s.io", "resourceclaims", READ),
            ("resource.k8s.io", "resourceslices", READ),
            ("resource.k8s.io", "deviceclasses", READ),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            ("apps", "deployments", READ),
            ("apps", "replicasets", READ),
            ("core", "replicationcontrollers", READ),
            ("policy", "poddisruptionbudgets", READ),
            ("apps", "statefulsets", READ),
            ("policy", "poddisruptionbudgets/status", "update"),
            ("core", "pods/status", "patch update"),
            ("*", "*/scale", "get"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            ("core", "pods services", READ),
            ("core", "endpoints", "create delete get list update watch"),
            ("core", "endpoints/restricted", "create"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            ("core", "nodes pods services", READ),
            ("core", "services/finalizers", "update"),
            ("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
            ("discovery.k8s.io", "endpointslices/restricted", "create"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            ("core", "endpoints services", READ),
            ("core", "services/finalizers", "update"),
            ("core", "endpoints/finalizers", "update"),
            ("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
            ("discovery.k8s.io", "endpointslices/restricted", "create"),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            ("core", "pods", READ),
            ("core", "pods/finalizers", "update"),
            ("core", "persistentvolumeclaims", "create get list watch"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            ("core", "persistentvolumes", "get list patch update watch"),
            ("core", "persistentvolumeclaims/status", "patch update"),
            ("core", "persistentvolumeclaims", READ),
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &[("*", "*", "delete get list patch update watch"), EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            ("autoscaling", "horizontalpodautoscalers", READ),
            ("autoscaling", "horizontalpodautoscalers/status", "update"),
            ("*", "*/scale", "get update"),
            ("core", "pods", "list watch"),
            ("metrics.k8s.io", "pods", "list watch"),
            ("custom.metrics.k8s.io", "*", READ),
            ("external.metrics.k8s.io", "*", READ),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            ("batch", "jobs", "get list patch update watch"),
            ("batch", "jobs/status", "update"),
            ("batch", "jobs/finalizers", "update"),
            ("core", "pods", "create delete list patch watch"),
            EVENTS,
        ],
    ),
    ("legacy-service-account-token-cleaner", &[("core", "secrets", "delete patch")]),
    (
        "namespace-controller",
        &[
            ("core", "namespaces", "delete get list watch"),
            ("core", "namespaces/finalize namespaces/status", "update"),
            ("*", "*", "delete deletecollection get list watch"),
        ],
    ),
    (
        "node-controller",
        &[
            ("core", "nodes", "delete get list patch update watch"),
            ("core", "nodes/status", "patch update"),
            ("core", "pods/status", "patch update"),
            ("core", "pods", "delete get list watch"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            ("core", "persistentvolumes", "create delete get list update watch"),
            ("core", "persistentvolumes/status", "update"),
            ("core", "persistentvolumeclaims", "get list update watch"),
            ("core", "persistentvolumeclaims/status", "update"),
            ("core", "pods", "create delete get list watch"),
            ("storage.k8s.io", "storageclasses", READ),
            ("core", "nodes", "list watch"),
            EVENTS,
            ("core", "events", "watch"),
        ],
    ),
    (
        "pod-garbage-collector",
        &[("core", "pods", "delete list watch"), ("core", "nodes", READ), ("core", "pods/status", "patch")],
    ),
    ("pv-protection-controller", &[("core", "persistentvolumes", "get list update watch"), EVENTS]),
    (
        "pvc-protection-controller",
        &[
            ("core", "persistentvolumeclaims", "get list update watch"),
            ("core", "persistentvolumeclaims/status", "update"),
            ("core", "pods", READ),
            EVENTS,
        ],
    ),
    (
        "replicaset-controller",
        &[
            ("apps", "replicasets", "get list update watch"),
            ("apps", "replicasets/status", "update"),
            ("apps", "replicasets/finalizers", "update"),
            ("core", "pods", "create delete list patch watch"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            ("core", "replicationcontrollers", "get list update watch"),
            ("core", "replicationcontrollers/status", "update"),
            ("core", "replicationcontrollers/finalizers", "update"),
            ("core", "pods", "create delete list patch watch"),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            ("core", "pods", READ),
            ("core", "pods/finalizers", "update"),
            ("resource.k8s.io", "resourceclaims", "create delete get list watch"),
            ("resource.k8s.io", "resourceclaims resourceclaims/status", "patch update"),
            ("core", "pods/status", "patch update"),
            EVENTS,
            ("resource.k8s.io", "resourceclaims/binding", "patch update"),
        ],
    ),
    (
        "resourcequota-controller",
        &[("*", "*", "list watch"), ("core", "resourcequotas/status", "update"), EVENTS],
    ),
    ("root-ca-cert-publisher", &[("core", "configmaps", "create update"), EVENTS]),
    ("route-controller", &[("core", "nodes", "list watch"), ("core", "nodes/status", "patch"), EVENTS]),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            ("core", "persistentvolumes", READ),
            ("core", "persistentvolumeclaims", READ),
            ("core", "pods", READ),
            ("storage.k8s.io", "csidrivers", READ),
        ],
    ),
    ("service-account-controller", &[("core", "serviceaccounts", "create"), EVENTS]),
    (
        "service-cidrs-controller",
        &[
            ("networking.k8s.io", "servicecidrs", "get list patch update watch"),
            ("networking.k8s.io", "servicecidrs/finalizers", "patch update"),
            ("networking.k8s.io", "servicecidrs/status", "patch update"),
            ("networking.k8s.io", "ipaddresses", READ),
            EVENTS,
        ],
    ),
    (
        "service-controller",
        &[
            ("core", "services", READ),
            ("core", "services/status", "patch update"),
            ("core", "nodes", "list watch"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            ("core", "pods", "list watch"),
            ("apps", "statefulsets", READ),
            ("apps", "statefulsets/status", "update"),
            ("apps", "statefulsets/finalizers", "update"),
            ("core", "pods", "create delete get patch update"),
            ("apps", "controllerrevisions", "create delete get list patch update watch"),
            ("core", "persistentvolumeclaims", "create get list watch"),
            ("core", "persistentvolumeclaims", "delete update"),
            ("core", "pods/finalizers", "update"),
            EVENTS,
        ],
    ),
    ("ttl-after-finished-controller", &[("batch", "jobs", "delete get list watch"), EVENTS]),
    ("ttl-controller", &[("core", "nodes", "list patch update watch"), EVENTS]),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            ("admissionregistration.k8s.io", "validatingadmissionpolicies", READ),
            ("admissionregistration.k8s.io", "validatingadmissionpolicies/status", "get patch update"),
            EVENTS,
        ],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            ("core", "persistentvolumeclaims", READ),
            ("core", "persistentvolumes", READ),
            ("storage.k8s.io", "volumeattributesclasses", "get list update watch"),
            EVENTS,
        ],
    ),
];

/// Further rules, for objects of these names alone.
pub(super) const NAMED: &[(&str, NamedRule)] = &[
    (
        "certificate-controller",
        ("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet", "approve"),
    ),
    (
        "certificate-controller",
        (
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
            "sign",
        ),
    ),
    (
        "legacy-service-account-token-cleaner",
        ("core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking", "get"),
    ),
];
