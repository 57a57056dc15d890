//! Where volumes come from, as rules: for pods, and for PersistentVolumes.

use serde_json::Value;

use super::projected;
use crate::error::FieldError;
use crate::registry::field_rules::{Check, Rule, at, when, within};
use crate::registry::kinds::core::persistentvolumeclaims;
use crate::registry::kinds::rules::paths::{descending, file_mode, no_backsteps, non_reserved};
use crate::registry::meta::names;
use crate::registry::object::items_at;

/// A field and the rules of what stands in it.
pub(crate) type Source = (&'static str, &'static [Rule]);

/// What a pod's volume can be, in the order in which the first one counts.
pub(crate) const OF_POD: &[Source] = &[
    ("emptyDir", &[at("sizeLimit", Check::Judge(size_limit))]),
    ("hostPath", HOST_PATH),
    ("gitRepo", &[at("repository", Check::Required("")), at("directory", Check::Judge(descending))]),
    ("gcePersistentDisk", GCE),
    ("awsElasticBlockStore", AWS),
    (
        "secret",
        &[
            at("secretName", Check::Required("")),
            at("defaultMode", Check::Judge(file_mode)),
            within("items[]", KEY_TO_PATH),
        ],
    ),
    ("nfs", NFS),
    ("iscsi", ISCSI),
    ("glusterfs", GLUSTERFS),
    ("flocker", FLOCKER),
    ("persistentVolumeClaim", &[at("claimName", Check::Required(""))]),
    ("rbd", RBD),
    (
        "cinder",
        &[at("volumeID", Check::Required("")), within("secretRef", &[at("name", Check::Required(""))])],
    ),
    ("cephfs", CEPH),
    ("quobyte", QUOBYTE),
    (
        "downwardAPI",
        &[at("defaultMode", Check::Judge(file_mode)), at("", Check::Judge(projected::downward_files))],
    ),
    ("fc", FC),
    ("flexVolume", FLEX),
    (
        "configMap",
        &[
            at("name", Check::Required("")),
            at("defaultMode", Check::Judge(file_mode)),
            within("items[]", KEY_TO_PATH),
        ],
    ),
    ("azureFile", AZURE_FILE),
    ("vsphereVolume", VSPHERE),
    ("photonPersistentDisk", PHOTON),
    ("portworxVolume", PORTWORX),
    ("azureDisk", AZURE_DISK),
    ("storageos", STORAGE_OS),
    ("projected", &[at("defaultMode", Check::Judge(file_mode)), at("", Check::Judge(projected::validate))]),
    ("scaleIO", SCALE_IO),
    (
        "csi",
        &[
            at("driver", Check::Required("")),
            at("driver", Check::Name(names::csi_driver)),
            within(
                "nodePublishSecretRef",
                &[at("name", Check::Required("")), at("name", Check::Name(names::subdomain))],
            ),
        ],
    ),
    (
        "ephemeral",
        &[
            at("volumeClaimTemplate", Check::Given("")),
            within("volumeClaimTemplate", &[at("", Check::Judge(persistentvolumeclaims::validate_template))]),
        ],
    ),
    ("image", &[at("pullPolicy", Check::OneOf(&["Always", "IfNotPresent", "Never"]))]),
];

/// What a PersistentVolume can be.
pub(crate) const OF_CLUSTER: &[Source] = &[
    ("hostPath", HOST_PATH),
    ("gcePersistentDisk", GCE),
    ("awsElasticBlockStore", AWS),
    (
        "glusterfs",
        &[
            at("endpoints", Check::Required("")),
            at("path", Check::Required("")),
            at("endpointsNamespace", Check::Text(names::label)),
        ],
    ),
    ("flocker", FLOCKER),
    ("nfs", NFS),
    ("rbd", RBD),
    ("quobyte", QUOBYTE),
    ("cephfs", CEPH),
    ("iscsi", ISCSI),
    (
        "cinder",
        &[
            at("volumeID", Check::Required("")),
            within("secretRef", &[at("name", Check::Required("")), at("namespace", Check::Required(""))]),
        ],
    ),
    ("fc", FC),
    ("flexVolume", FLEX),
    ("azureFile", AZURE_FILE),
    ("vsphereVolume", VSPHERE),
    ("photonPersistentDisk", PHOTON),
    ("portworxVolume", PORTWORX),
    ("azureDisk", AZURE_DISK),
    ("scaleIO", SCALE_IO),
    ("local", &[at("path", Check::Required("")), at("path", Check::Judge(no_backsteps))]),
    ("storageos", STORAGE_OS),
    (
        "csi",
        &[
            at("driver", Check::Required("")),
            at("driver", Check::Name(names::csi_driver)),
            at("volumeHandle", Check::Required("")),
            within("controllerPublishSecretRef", SECRET),
            within("controllerExpandSecretRef", SECRET),
            within("nodePublishSecretRef", SECRET),
            within("nodeExpandSecretRef", SECRET),
        ],
    ),
];

/// A key of a ConfigMap or Secret and the file it becomes.
pub(super) const KEY_TO_PATH: &[Rule] = &[
    at("key", Check::Required("")),
    at("path", Check::Required("")),
    at("path", Check::Judge(non_reserved)),
    at("mode", Check::Judge(file_mode)),
];

const SECRET: &[Rule] = &[
    at("name", Check::Required("")),
    at("name", Check::Name(names::subdomain)),
    at("namespace", Check::Required("")),
    at("namespace", Check::Name(names::label)),
];

const HOST_PATH: &[Rule] = &[
    at("path", Check::Required("")),
    at("path", Check::Judge(no_backsteps)),
    at(
        "type",
        Check::OneOf(&[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ]),
    ),
];

const GCE: &[Rule] = &[at("pdName", Check::Required("")), at("partition", Check::Judge(partition))];
const AWS: &[Rule] = &[at("volumeID", Check::Required("")), at("partition", Check::Judge(partition))];
const NFS: &[Rule] =
    &[at("server", Check::Required("")), at("path", Check::Required("")), at("path", Check::Judge(absolute))];
const GLUSTERFS: &[Rule] = &[at("endpoints", Check::Required("")), at("path", Check::Required(""))];
const RBD: &[Rule] = &[at("monitors", Check::Required("")), at("image", Check::Required(""))];
const CEPH: &[Rule] = &[at("monitors", Check::Required(""))];
const VSPHERE: &[Rule] = &[at("volumePath", Check::Required(""))];
const PHOTON: &[Rule] = &[at("pdID", Check::Required(""))];
const PORTWORX: &[Rule] = &[at("volumeID", Check::Required(""))];
const AZURE_FILE: &[Rule] = &[at("secretName", Check::Required("")), at("shareName", Check::Required(""))];
const QUOBYTE: &[Rule] = &[
    at("registry", Check::Required("must be a host:port pair or multiple pairs separated by commas")),
    at("volume", Check::Required("")),
];
const SCALE_IO: &[Rule] = &[
    at("gateway", Check::Required("")),
    at("system", Check::Required("")),
    at("volumeName", Check::Required("")),
];
const STORAGE_OS: &[Rule] = &[
    at("volumeName", Check::Required("")),
    at("volumeName", Check::Name(names::label)),
    at("volumeNamespace", Check::Name(names::label)),
    within("secretRef", &[at("name", Check::Required(""))]),
];
const AZURE_DISK: &[Rule] = &[
    at("diskName", Check::Required("")),
    at("diskURI", Check::Required("")),
    at("cachingMode", Check::OneOf(&["None", "ReadOnly", "ReadWrite"])),
    at("kind", Check::OneOf(&["Dedicated", "Managed", "Shared"])),
    when("kind", &["Managed"], &[at("diskURI", Check::Judge(managed_disk))]),
    when("kind", &["Dedicated", "Shared"], &[at("diskURI", Check::Judge(blob_disk))]),
];
const ISCSI: &[Rule] = &[
    at("targetPortal", Check::Required("")),
    at("iqn", Check::Required("")),
    at("iqn", Check::Name(qualified_target)),
    at("lun", Check::Between(0, 255)),
    at("initiatorName", Check::Name(qualified_target)),
    at("", Check::Judge(chap)),
];
const FC: &[Rule] = &[at("", Check::Judge(fibre_channel))];
const FLEX: &[Rule] = &[at("driver", Check::Required("")), at("options", Check::Judge(flex_options))];
const FLOCKER: &[Rule] = &[at("", Check::Judge(flocker))];

fn size_limit(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let below =
        crate::registry::field_rules::quantity(value).is_some_and(|it| it < penstock_schema::Quantity::ZERO);
    if below {
        errors.push(FieldError::forbidden(path, "SizeLimit field must be a valid resource quantity"));
    }
}

fn partition(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.as_i64().is_some_and(|n| !(0..=255).contains(&n)) {
        errors.push(FieldError::invalid(path, value.clone(), "must be between 0 and 255, inclusive"));
    }
}

fn absolute(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if !text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be an absolute path"));
    }
}

fn managed_disk(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const FORM: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    let text = value.as_str().unwrap_or_default();
    if !text.starts_with("/subscriptions/") {
        errors.push(FieldError::not_supported(path, text, &[FORM]));
    }
}

fn blob_disk(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const FORM: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let text = value.as_str().unwrap_or_default();
    if !text.starts_with("https://") {
        errors.push(FieldError::not_supported(path, text, &[FORM]));
    }
}

/// The name of an iSCSI node in one of its three forms.
fn qualified_target(name: &str) -> Option<String> {
    let is_coded =
        |length: usize| name.len() == 4 + length && name.bytes().skip(4).all(|c| c.is_ascii_alphanumeric());
    let good = match name.get(..3) {
        Some("iqn") => name.as_bytes().get(3) == Some(&b'.') && name.len() > "iqn.2001-04.".len(),
        Some("eui") => is_coded(16),
        Some("naa") => is_coded(32),
        _ => return Some("must be valid format starting with iqn, eui, or naa".into()),
    };
    (!good).then(|| "must be valid format".into())
}

fn chap(iscsi: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let is_asked = iscsi["chapAuthDiscovery"] == true || iscsi["chapAuthSession"] == true;
    if is_asked && iscsi["secretRef"].is_null() {
        errors.push(FieldError::required(format!("{path}.secretRef"), ""));
    }
}

fn fibre_channel(fc: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.targetWWNs");
    match (items_at(fc, "/targetWWNs").is_empty(), items_at(fc, "/wwids").is_empty()) {
        (true, true) => {
            errors.push(FieldError::required(at, "must specify either targetWWNs or wwids, but not both"));
        }
        (false, false) => {
            let why = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(at, fc["targetWWNs"].clone(), why));
        }
        _ => {}
    }
    if items_at(fc, "/targetWWNs").is_empty() {
        return;
    }
    let at = format!("{path}.lun");
    match fc["lun"].as_i64() {
        None => errors.push(FieldError::required(at, "lun is required if targetWWNs is specified")),
        Some(lun) if !(0..=255).contains(&lun) => {
            errors.push(FieldError::invalid(at, lun, "must be between 0 and 255, inclusive"));
        }
        Some(_) => {}
    }
}

fn flex_options(options: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (key, _) in options.as_object().into_iter().flatten() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(format!("{path}[{key}]"), key.as_str(), why));
        }
    }
}

fn flocker(flocker: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = |field: &str| flocker[field].as_str().unwrap_or_default();
    let (name, uuid) = (text("datasetName"), text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", why));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(format!("{path}.datasetName"), name, "must not contain '/'"));
    }
}
