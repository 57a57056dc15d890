//! The list of owners as an object carries it: `metadata.managedFields`.

use std::fmt;

use serde_json::{Map, Value, json};

use super::claims::{Claim, Conflict, Managed};
use super::element::path_text;
use super::fields_v1::FieldsError;
use super::set::Set;

/// How an owner came by its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who an owner is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Empty for appliers, who are the same whatever version they apply.
    pub api_version: String,
    pub subresource: String,
}

/// Why an object's list cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagedError {
    #[error("managedFields is not a list of objects")]
    NotAList,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoVersion,
    #[error("missing fieldsType in managed fields entry {index}")]
    NoFieldsType { index: usize },
    #[error("invalid fieldsType {fields_type:?} in managed fields entry {index}")]
    FieldsType { fields_type: String, index: usize },
    #[error("the fields of managed fields entry {index} cannot be read: {source}")]
    Fields {
        index: usize,
        #[source]
        source: FieldsError,
    },
}

// === impl Operation ===

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

// === impl Manager ===

impl Manager {
    pub fn applying(name: &str, subresource: &str) -> Manager {
        Manager::new(name, Operation::Apply, "", subresource)
    }

    pub fn updating(name: &str, api_version: &str, subresource: &str) -> Manager {
        Manager::new(name, Operation::Update, api_version, subresource)
    }

    fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Manager {
        Manager {
            name: if name.is_empty() { "unknown".into() } else { name.into() },
            operation,
            api_version: api_version.into(),
            subresource: subresource.into(),
        }
    }
}

/// As conflicts name an owner.
impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::from(self.name.as_str()))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", Value::from(self.subresource.as_str()))?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

// === impl Managed ===

impl Managed {
    /// Reads `metadata.managedFields`; absent is empty.
    ///
    /// # Errors
    /// The first entry that is none.
    pub fn read(entries: Option<&Value>) -> Result<Managed, ManagedError> {
        let mut managed = Managed::default();
        let entries = match entries {
            None | Some(Value::Null) => return Ok(managed),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(ManagedError::NotAList),
        };
        for (index, entry) in entries.iter().enumerate() {
            let entry = entry.as_object().ok_or(ManagedError::NotAList)?;
            let (manager, claim) = read_entry(entry, index)?;
            managed.claims.insert(manager, claim);
        }
        Ok(managed)
    }

    /// Reads a list that was [written](Managed::write) here, without looking at the fields before it must. Of one that
    /// was not, nothing is left.
    pub fn read_written(entries: Option<Value>) -> Managed {
        let Some(Value::Array(entries)) = entries else { return Managed::default() };
        let mut managed = Managed::default();
        for (index, mut entry) in entries.into_iter().enumerate() {
            let fields = entry.get_mut("fieldsV1").map(Value::take);
            let read = entry.as_object().ok_or(ManagedError::NotAList).and_then(|e| read_identity(e, index));
            let Ok((manager, api_version, time)) = read else { return Managed::default() };
            let fields = fields.unwrap_or_else(|| json!({}));
            managed.claims.insert(manager, Claim::written(fields, api_version, time));
        }
        managed
    }

    /// Writes `metadata.managedFields`, in the order objects carry it.
    pub fn write(self) -> Vec<Value> {
        fn order((manager, claim): &(Manager, Claim)) -> (Operation, &Option<String>, &str, &str, &str) {
            (manager.operation, &claim.time, &manager.name, &claim.api_version, &manager.subresource)
        }
        let mut sorted: Vec<(Manager, Claim)> = self.claims.into_iter().collect();
        sorted.sort_by(|a, b| order(a).cmp(&order(b)));
        sorted.into_iter().map(|(manager, claim)| write_entry(manager, claim)).collect()
    }
}

fn read_entry(entry: &Map<String, Value>, index: usize) -> Result<(Manager, Claim), ManagedError> {
    let (manager, api_version, time) = read_identity(entry, index)?;
    let set = match entry.get("fieldsV1") {
        Some(fields) => {
            Set::from_fields_v1(fields).map_err(|source| ManagedError::Fields { index, source })?
        }
        None => Set::default(),
    };
    Ok((manager, Claim::new(set, api_version, time)))
}

/// Everything but the fields: who, in which version, when.
fn read_identity(
    entry: &Map<String, Value>,
    index: usize,
) -> Result<(Manager, String, Option<String>), ManagedError> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagedError::Operation),
    };
    let api_version = text("apiVersion").to_owned();
    if api_version.is_empty() {
        return Err(ManagedError::NoVersion);
    }
    match text("fieldsType") {
        "FieldsV1" => {}
        "" => return Err(ManagedError::NoFieldsType { index }),
        other => return Err(ManagedError::FieldsType { fields_type: other.to_owned(), index }),
    }
    let manager = Manager {
        name: text("manager").to_owned(),
        operation,
        api_version: if operation == Operation::Apply { String::new() } else { api_version.clone() },
        subresource: text("subresource").to_owned(),
    };
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok((manager, api_version, time))
}

fn write_entry(manager: Manager, mut claim: Claim) -> Value {
    let mut entry = Map::new();
    entry.insert("apiVersion".into(), std::mem::take(&mut claim.api_version).into());
    entry.extend(claim.time.take().map(|time| ("time".to_owned(), time.into())));
    entry.insert("fieldsType".into(), "FieldsV1".into());
    entry.insert("fieldsV1".into(), claim.into_fields_v1());
    entry.insert("manager".into(), manager.name.into());
    entry.insert("operation".into(), manager.operation.name().into());
    if !manager.subresource.is_empty() {
        entry.insert("subresource".into(), manager.subresource.into());
    }
    Value::Object(entry)
}

/// What a refused apply says, in upstream's words.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.owner,
            path_text(&only.path)
        );
    }
    let mut lines = Vec::new();
    let mut owner = None;
    for conflict in conflicts {
        if owner != Some(&conflict.owner) {
            lines.push(format!("conflicts with {}:", conflict.owner));
            owner = Some(&conflict.owner);
        }
        lines.push(format!("- {}", path_text(&conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
