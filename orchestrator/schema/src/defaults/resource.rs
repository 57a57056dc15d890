//! Device requests and tolerations of dynamic resource allocation.

use super::{Hook, Object, fill_zero, is_empty_list, text};

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.resource.v1.ExactDeviceRequest", device_request),
    ("io.k8s.api.resource.v1.DeviceSubRequest", device_request),
    ("io.k8s.api.resource.v1beta2.ExactDeviceRequest", device_request),
    ("io.k8s.api.resource.v1beta2.DeviceSubRequest", device_request),
    ("io.k8s.api.resource.v1beta1.DeviceSubRequest", device_request),
    ("io.k8s.api.resource.v1beta1.DeviceRequest", device_request_or_choice),
];

fn device_request(request: &mut Object) {
    fill_zero(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        fill_zero(request, "count", 1);
    }
}

/// In v1beta1 one struct is either a request or a choice of several.
fn device_request_or_choice(request: &mut Object) {
    if is_empty_list(request, "firstAvailable") {
        device_request(request);
    }
}
