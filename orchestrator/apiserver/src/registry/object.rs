//! An object as it is shared: serialised once a format, whoever reads it.
//!
//! The watch cache, lists, gets and all watchers hold the same [`CachedObject`]. What selectors and keys need is
//! extracted when it is built; the whole `Value` is parsed again on demand, so an idle object costs its bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use penstock_schema::{Text, TypeRef};
use serde_json::{Value, json};

use crate::error::ApiError;

/// Computes the selectable fields of an object: `(field label, value)`.
pub type SelectableFields = fn(&Value) -> Vec<(&'static str, String)>;

/// One object at one revision, in the API version it is served in.
pub struct CachedObject {
    ty: TypeRef,
    /// With `apiVersion`, `kind` and `metadata.resourceVersion`.
    json: Bytes,
    protobuf: OnceLock<Option<Bytes>>,
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Store revision; 0 for objects that are not stored (Status, Scale, dry-run results).
    pub resource_version: u64,
    pub labels: BTreeMap<String, String>,
    /// Values of the kind's selectable fields besides `metadata.name` and `metadata.namespace`.
    pub fields: Vec<(Text, String)>,
    /// This object under the revision of the one event that replaced or removed it.
    tombstone: OnceLock<Arc<CachedObject>>,
    /// This object in other versions, by what made them of it; converters are asked once.
    converted: Mutex<Vec<(String, Arc<CachedObject>)>>,
}

impl std::fmt::Debug for CachedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}@{}", self.kind, self.namespace, self.name, self.resource_version)
    }
}

impl CachedObject {
    /// `value` must carry its `apiVersion` and `kind`.
    pub fn new(ty: &TypeRef, value: &Value, fields: Vec<(Text, String)>) -> Self {
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
        let labels = match value.pointer("/metadata/labels").and_then(Value::as_object) {
            Some(map) => map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect(),
            None => BTreeMap::new(),
        };
        Self {
            ty: ty.clone(),
            json: Bytes::from(value.to_string()),
            protobuf: OnceLock::new(),
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            resource_version: text("/metadata/resourceVersion").parse().unwrap_or(0),
            labels,
            fields,
            tombstone: OnceLock::new(),
            converted: Mutex::default(),
        }
    }

    /// The JSON form, complete: `{"apiVersion":..,"kind":..,"metadata":..}`.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The bare protobuf message (no envelope), as lists embed it; computed at first use and shared after.
    pub fn protobuf(&self) -> Result<Bytes, ApiError> {
        let encoded = self
            .protobuf
            .get_or_init(|| penstock_schema::protobuf::encode(&self.ty, &self.value()).map(Bytes::from).ok());
        encoded.clone().ok_or_else(|| {
            ApiError::not_acceptable(format!("object kind {} has no protobuf representation", self.kind))
        })
    }

    /// The protobuf message in its `k8s\0` envelope.
    pub fn protobuf_sealed(&self) -> Result<Bytes, ApiError> {
        let raw = self.protobuf()?;
        Ok(Bytes::from(penstock_schema::protobuf::seal_envelope(&self.api_version, &self.kind, &raw)))
    }

    /// The parsed object. Parses anew each time: callers that need it twice keep it.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }

    pub fn ty(&self) -> &TypeRef {
        &self.ty
    }

    /// Value of a field label; `None` when the kind does not offer it.
    pub fn field(&self, label: &str) -> Option<&str> {
        match label {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self.fields.iter().find(|(l, _)| *l == label).map(|(_, v)| v.as_str()),
        }
    }

    /// The same object under `revision`: what a DELETED event carries. An object has one successor, so the first
    /// call fixes the revision and all watchers share the result.
    pub fn tombstone(&self, revision: u64) -> Arc<CachedObject> {
        let made = self.tombstone.get_or_init(|| Arc::new(self.at_revision(revision)));
        if made.resource_version == revision { made.clone() } else { Arc::new(self.at_revision(revision)) }
    }

    /// The form `fingerprint` made of this object.
    pub(crate) fn converted(&self, fingerprint: &str) -> Option<Arc<CachedObject>> {
        self.converted.lock().iter().find(|(by, _)| by == fingerprint).map(|(_, form)| form.clone())
    }

    pub(crate) fn keep_converted(&self, fingerprint: &str, form: Arc<CachedObject>) {
        const FORMS_MAX: usize = 4;
        let mut forms = self.converted.lock();
        if forms.len() >= FORMS_MAX {
            forms.remove(0);
        }
        forms.push((fingerprint.to_owned(), form));
    }

    fn at_revision(&self, revision: u64) -> Self {
        let mut value = self.value();
        set_resource_version(&mut value, revision);
        Self {
            ty: self.ty.clone(),
            json: Bytes::from(value.to_string()),
            protobuf: OnceLock::new(),
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: revision,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            tombstone: OnceLock::new(),
            converted: Mutex::default(),
        }
    }
}

/// Writes a store revision into `metadata.resourceVersion`; 0 removes it.
pub fn set_resource_version(value: &mut Value, revision: u64) {
    if let Some(meta) = meta_mut(value) {
        if revision == 0 {
            meta.remove("resourceVersion");
        } else {
            meta.insert("resourceVersion".into(), revision.to_string().into());
        }
    }
}

/// The object's metadata, made when missing. `None` only when `value` is no object.
pub fn meta_mut(value: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let object = value.as_object_mut()?;
    let meta = object.entry("metadata").or_insert_with(|| json!({}));
    if !meta.is_object() {
        *meta = json!({});
    }
    meta.as_object_mut()
}

/// `metadata.<field>` as text; empty when absent.
pub fn meta_str<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// Text at a JSON pointer; empty when absent.
pub fn str_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Items of the array at a JSON pointer; empty when absent.
pub fn items_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
