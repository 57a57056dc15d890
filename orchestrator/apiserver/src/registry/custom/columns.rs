//! Printer columns of a custom kind: what `kubectl get` shows of it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json_path::JsonPath;
use crate::tables::cells;

/// The columns after the name.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrinterColumns {
    columns: Vec<PrinterColumn>,
}

#[derive(Debug, Clone)]
struct PrinterColumn {
    definition: Value,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    kind: String,
    /// None for a path that is not understood: the cell stays empty.
    path: Option<JsonPath>,
}

// === impl PrinterColumns ===

impl PrinterColumns {
    /// Reads `additionalPrinterColumns`; without any, objects show their age.
    pub fn of(columns: &Value) -> Self {
        let age = json!([{
            "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "When the object was made, by the server's clock."
        }]);
        let given = columns.as_array().filter(|columns| !columns.is_empty());
        let columns = given.or(age.as_array()).into_iter().flatten().map(PrinterColumn::of).collect();
        Self { columns }
    }

    pub fn definitions(&self) -> Vec<Value> {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": crate::tables::NAME.description,
        });
        std::iter::once(name).chain(self.columns.iter().map(|column| column.definition.clone())).collect()
    }

    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = cells::name(object);
        std::iter::once(name).chain(self.columns.iter().map(|column| column.cell(object, now))).collect()
    }
}

// === impl PrinterColumn ===

impl PrinterColumn {
    fn of(column: &Value) -> Self {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        let path = text("jsonPath");
        let described = text("description");
        let description = match described {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            given => given.to_owned(),
        };
        Self {
            definition: json!({
                "name": text("name"), "type": text("type"), "format": text("format"),
                "description": description, "priority": column["priority"].as_i64().unwrap_or(0),
            }),
            kind: text("type").to_owned(),
            path: JsonPath::parse(path),
        }
    }

    /// Null where there is nothing of the column's type.
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().and_then(|path| path.first(object)).filter(|value| !value.is_null());
        let Some(value) = found else { return Value::Null };
        match (self.kind.as_str(), value) {
            ("string", Value::String(_)) => value.clone(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(n)) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).into(),
            ("number", Value::Number(n)) => n.as_f64().into(),
            ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(at)) if at.parse::<Timestamp>().is_ok() => cells::since(Some(value), now),
            ("date", Value::String(_)) => "<invalid>".into(),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_of_their_columns_type() {
        let columns = PrinterColumns::of(&json!([
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cron", "priority": 1},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Wrong", "type": "boolean", "jsonPath": ".spec.cron"},
            {"name": "Tags", "type": "string", "jsonPath": ".spec.tags"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]));
        let object = json!({
            "metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"cron": "* *", "replicas": 3, "tags": ["a"]},
        });
        let now = "2026-01-01T00:00:30Z".parse().unwrap();
        assert_eq!(
            columns.cells(&object, now),
            [json!("x"), json!("* *"), json!(3), Value::Null, json!("[\"a\"]"), json!("30s")]
        );
        let definitions = columns.definitions();
        assert_eq!(definitions[0]["format"], "name");
        assert_eq!(definitions[1]["priority"], 1);
        assert_eq!(
            definitions[1]["description"],
            "Custom resource definition column (in JSONPath format): .spec.cron"
        );
    }

    #[test]
    fn without_columns_objects_show_their_age() {
        let columns = PrinterColumns::of(&Value::Null);
        assert_eq!(columns.definitions()[1]["name"], "Age");
    }
}
