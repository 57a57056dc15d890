//! Which files a ConfigMap, Secret or downward-API source shows. Pure.

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret};

use super::VolumeError;
use super::atomic::Files;
use crate::desired::Desired;
use crate::fields::{self, Addresses, Allocatable};

/// Mode of files when nothing else is said.
pub const MODE: i32 = 0o644;

fn mode(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0o644) & 0o7777
}

/// Files of a ConfigMap.
pub fn config_map(
    object: Option<&ConfigMap>,
    name: &str,
    items: Option<&[KeyToPath]>,
    default_mode: i32,
    optional: bool,
) -> Result<Files, VolumeError> {
    let Some(object) = object else {
        return missing("configmap", name, optional);
    };
    let text = object.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    select(text.chain(binary).collect(), ("configmap", name), items, default_mode, optional)
}

/// Files of a Secret.
pub fn secret(
    object: Option<&Secret>,
    name: &str,
    items: Option<&[KeyToPath]>,
    default_mode: i32,
    optional: bool,
) -> Result<Files, VolumeError> {
    let Some(object) = object else {
        return missing("secret", name, optional);
    };
    let data = object.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    select(data.collect(), ("secret", name), items, default_mode, optional)
}

fn missing(kind: &'static str, name: &str, optional: bool) -> Result<Files, VolumeError> {
    if optional { Ok(Files::new()) } else { Err(VolumeError::NoObject { kind, name: name.to_string() }) }
}

fn select(
    data: std::collections::BTreeMap<String, Vec<u8>>,
    (kind, name): (&'static str, &str),
    items: Option<&[KeyToPath]>,
    default_mode: i32,
    optional: bool,
) -> Result<Files, VolumeError> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.into_iter().map(|(key, bytes)| (key, (bytes, mode(default_mode)))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                files.insert(item.path.clone(), (bytes.clone(), mode(item.mode.unwrap_or(default_mode))));
            }
            None if optional => {}
            None => {
                return Err(VolumeError::NoKey { kind, name: name.to_string(), key: item.key.clone() });
            }
        }
    }
    Ok(files)
}

/// Files of a downward-API volume.
pub fn downward(
    desired: &Desired,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    addresses: &Addresses,
    node: &Allocatable,
) -> Result<Files, VolumeError> {
    let mut files = Files::new();
    for item in items {
        let field = item.field_ref.as_ref();
        let text = match (field, &item.resource_field_ref) {
            (Some(field), _) => fields::pod_field(&desired.pod, &field.field_path, addresses),
            (None, Some(resource)) => {
                let container = resource.container_name.as_deref().and_then(|n| desired.container(n));
                container.and_then(|s| fields::resource_field(&s.container, resource, node))
            }
            (None, None) => None,
        };
        let text = text.ok_or_else(|| VolumeError::NoField { path: item.path.clone() })?;
        files.insert(item.path.clone(), (text.into_bytes(), mode(item.mode.unwrap_or(default_mode))));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let map: ConfigMap =
            serde_json::from_value(serde_json::json!({"data": {"a": "1", "b": "2"}})).unwrap();
        let items = [KeyToPath { key: "b".into(), path: "x/y".into(), mode: Some(0o400) }];
        let files = config_map(Some(&map), "m", Some(&items), MODE, false).unwrap();
        assert_eq!(files, Files::from([("x/y".to_string(), (b"2".to_vec(), 0o400))]));
        let all = config_map(Some(&map), "m", None, MODE, false).unwrap();
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn what_is_missing_is_an_error_unless_optional() {
        assert!(config_map(None, "m", None, MODE, false).is_err());
        assert_eq!(config_map(None, "m", None, MODE, true).unwrap(), Files::new());
        let items = [KeyToPath { key: "none".into(), path: "p".into(), mode: None }];
        assert!(secret(Some(&Secret::default()), "s", Some(&items), MODE, false).is_err());
    }
}
