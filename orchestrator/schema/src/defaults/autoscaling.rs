//! Horizontal pod autoscalers.

use serde_json::json;

use super::{Hook, Object, child, existing, fill, is_empty_list};

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler", v1),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler", v2),
];

fn v1(autoscaler: &mut Object) {
    if let Some(spec) = child(autoscaler, "spec") {
        fill(spec, "minReplicas", 1);
    }
}

fn v2(autoscaler: &mut Object) {
    let Some(spec) = child(autoscaler, "spec") else {
        return;
    };
    fill(spec, "minReplicas", 1);
    if is_empty_list(spec, "metrics") {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert(
            "metrics".into(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
        );
    }
    let Some(behavior) = existing(spec, "behavior") else {
        return;
    };
    if let Some(up) = child(behavior, "scaleUp") {
        fill(up, "stabilizationWindowSeconds", 0);
        fill(up, "selectPolicy", "Max");
        if is_empty_list(up, "policies") {
            let policies = json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]);
            up.insert("policies".into(), policies);
        }
    }
    if let Some(down) = child(behavior, "scaleDown") {
        // Its window's default is a flag of the controller.
        fill(down, "selectPolicy", "Max");
        if is_empty_list(down, "policies") {
            down.insert("policies".into(), json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        }
    }
}
