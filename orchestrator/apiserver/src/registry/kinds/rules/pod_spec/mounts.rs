//! Where a container sees the pod's volumes: as files, or as devices.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::kinds::rules::paths::{descending, no_backsteps};
use crate::registry::object::{items_at, str_at};

/// Volumes of the pod by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

pub(super) fn validate(container: &Value, at: &str, volumes: &Volumes<'_>, errors: &mut Vec<FieldError>) {
    files(container, &format!("{at}.volumeMounts"), volumes, errors);
    devices(container, &format!("{at}.volumeDevices"), volumes, errors);
}

fn files(container: &Value, at: &str, volumes: &Volumes<'_>, errors: &mut Vec<FieldError>) {
    let devices = items_at(container, "/volumeDevices");
    let mut seen = BTreeSet::new();
    for (i, mount) in items_at(container, "/volumeMounts").iter().enumerate() {
        let path = format!("{at}[{i}]");
        let (name, mount_path) = (str_at(mount, "/name"), str_at(mount, "/mountPath"));
        let (name_at, path_at) = (format!("{path}.name"), format!("{path}.mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(name_at.as_str(), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(name_at.as_str(), name));
        }
        if mount_path.is_empty() {
            errors.push(FieldError::required(path_at.as_str(), ""));
        }
        if !seen.insert(mount_path) {
            errors.push(FieldError::invalid(path_at.as_str(), mount_path, "must be unique"));
        }
        if devices.iter().any(|it| it["name"] == name) {
            errors.push(FieldError::invalid(name_at, name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|it| it["devicePath"] == mount_path) {
            let why = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(path_at, mount_path, why));
        }
        // Upstream names the list here, not the item.
        for field in ["subPath", "subPathExpr"] {
            descending(&mount[field], &format!("{at}.{field}"), errors);
        }
        if !str_at(mount, "/subPath").is_empty() && !str_at(mount, "/subPathExpr").is_empty() {
            errors.push(FieldError::invalid(
                format!("{path}.subPathExpr"),
                mount["subPathExpr"].clone(),
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
        propagation(container, mount, at, errors);
    }
}

fn propagation(container: &Value, mount: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let allowed = ["Bidirectional", "HostToContainer", "None"];
    let said = str_at(mount, "/mountPropagation");
    let path = format!("{at}.mountPropagation");
    if !said.is_empty() && !allowed.contains(&said) {
        errors.push(FieldError::not_supported(path.as_str(), said, &allowed));
    }
    let privileged = container.pointer("/securityContext/privileged") == Some(&Value::Bool(true));
    if said == "Bidirectional" && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, why));
    }
    let path = format!("{at}.recursiveReadOnly");
    match str_at(mount, "/recursiveReadOnly") {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if mount["readOnly"] != true {
                errors.push(FieldError::forbidden(
                    path.as_str(),
                    "may only be specified when readOnly is true",
                ));
            }
            if !matches!(said, "" | "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, why));
            }
        }
        other => errors.push(FieldError::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

fn devices(container: &Value, at: &str, volumes: &Volumes<'_>, errors: &mut Vec<FieldError>) {
    let mounts = items_at(container, "/volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in items_at(container, "/volumeDevices").iter().enumerate() {
        let (name, device_path) = (str_at(device, "/name"), str_at(device, "/devicePath"));
        let (name_at, path_at) = (format!("{at}[{i}].name"), format!("{at}[{i}].devicePath"));
        if name.is_empty() {
            errors.push(FieldError::required(name_at.as_str(), ""));
        } else if !names.insert(name) {
            errors.push(FieldError::invalid(name_at.as_str(), name, "must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(FieldError::not_found(name_at.as_str(), name)),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(name_at.as_str(), name, why));
            }
            Some(_) => {}
        }
        if device_path.is_empty() {
            errors.push(FieldError::required(path_at.as_str(), ""));
        }
        let mut steps = Vec::new();
        no_backsteps(&device["devicePath"], &path_at, &mut steps);
        if !steps.is_empty() {
            let why = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(path_at.as_str(), device_path, why));
        } else if !paths.insert(device_path) {
            errors.push(FieldError::invalid(path_at.as_str(), device_path, "must be unique"));
        }
        if mounts.iter().any(|it| it["name"] == name) {
            errors.push(FieldError::invalid(name_at, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|it| it["mountPath"] == device_path) {
            let why = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(path_at, device_path, why));
        }
    }
}
