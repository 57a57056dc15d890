//! Storage classes and CSI drivers.

use serde_json::json;

use super::{Hook, Object, child, fill, is_empty_list};

pub(super) const HOOKS: &[(&str, Hook)] =
    &[("io.k8s.api.storage.v1.StorageClass", storage_class), ("io.k8s.api.storage.v1.CSIDriver", csi_driver)];

fn storage_class(class: &mut Object) {
    fill(class, "reclaimPolicy", "Delete");
    fill(class, "volumeBindingMode", "Immediate");
}

fn csi_driver(driver: &mut Object) {
    let Some(spec) = child(driver, "spec") else { return };
    fill(spec, "attachRequired", true);
    fill(spec, "podInfoOnMount", false);
    fill(spec, "storageCapacity", false);
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    fill(spec, "requiresRepublish", false);
    fill(spec, "seLinuxMount", false);
    if is_empty_list(spec, "volumeLifecycleModes") {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}
