//! JSON to values and back.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Number, Value as Json};

use super::{List, Map, Object, Opaque, Text, Value};
use crate::error::EvaluationError;
use crate::library::times;
use crate::types::Type;

/// JSON as a value of a type. What does not fit its type is what it looks like.
pub(crate) fn from_json<'a>(json: &'a Json, ty: &Type) -> Value<'a> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => from_number(number, ty),
        Json::String(text) => match ty {
            Type::Timestamp => times::parse_timestamp(text).map(Value::Timestamp),
            Type::Duration => times::parse_duration(text).map(Value::Duration),
            Type::Bytes => STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into())),
            _ => None,
        }
        .unwrap_or(Value::String(Text::Borrowed(text))),
        Json::Array(items) => {
            let item = match ty {
                Type::List(item) => (**item).clone(),
                _ => Type::Dyn,
            };
            Value::List(List::Json(items, item))
        }
        Json::Object(fields) => Value::Map(Map::Json(fields, ty.clone())),
    }
}

fn from_number<'a>(number: &Number, ty: &Type) -> Value<'a> {
    let double = number.as_f64().unwrap_or_default();
    match (ty, number.as_i64()) {
        (Type::Double, _) => Value::Double(double),
        (_, Some(int)) => Value::Int(int),
        (Type::Int, None) if double.fract() == 0.0 && double.abs() < 9e18 => Value::Int(double as i64),
        (_, None) => Value::Double(double),
    }
}

impl Value<'_> {
    /// The value as JSON. Optional values that are not there are left out of what holds them.
    ///
    /// # Errors
    /// Values that JSON has no form for, and objects whose type is not the one of their place.
    pub fn to_json(&self) -> Result<Json, EvaluationError> {
        self.json_at(None)
    }

    fn json_at(&self, place: Option<&str>) -> Result<Json, EvaluationError> {
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Uint(value) => (*value).into(),
            Value::Double(value) => {
                if value.fract() == 0.0 && value.abs() < 1e15 {
                    (*value as i64).into()
                } else {
                    Number::from_f64(*value)
                        .map(Json::Number)
                        .ok_or_else(|| EvaluationError::function("a number that is not finite has no JSON"))?
                }
            }
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Value::Duration(nanos) => times::print_duration(*nanos).into(),
            Value::Timestamp(at) => at.to_string().into(),
            Value::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Value::List(list) => Json::Array(
                list.iter()
                    .filter(|item| !matches!(item, Value::Optional(None)))
                    .map(|item| item.json_at(place))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Map(Map::Json(fields, _)) => Json::Object((*fields).clone()),
            Value::Map(map) => {
                let mut out = JsonMap::new();
                for key in map.keys() {
                    if let Some(value) = map.get(&key).filter(|value| !matches!(value, Value::Optional(None)))
                    {
                        out.insert(key.to_string(), value.json_at(place)?);
                    }
                }
                Json::Object(out)
            }
            Value::Object(object) => object.to_json(place)?,
            Value::Optional(Some(inner)) => inner.json_at(place)?,
            Value::Opaque(Opaque::Quantity(quantity)) => quantity.to_string().into(),
            Value::Optional(None) => Json::Null,
            Value::Type(_) | Value::Opaque(_) => {
                let detail = format!("a value of type {} has no JSON", self.type_name());
                return Err(EvaluationError::function(detail));
            }
        })
    }
}

impl Object<'_> {
    /// `place` is the name its type must have: the path to it.
    fn to_json(&self, place: Option<&str>) -> Result<Json, EvaluationError> {
        if let Some(place) = place
            && self.name != place
        {
            let detail = format!(
                "unexpected type name {:?}, expected {place:?}, which matches field name path from root Object type",
                self.name
            );
            return Err(EvaluationError::function(detail));
        }
        let mut out = JsonMap::new();
        for (name, value) in &self.fields {
            let path = format!("{}.{name}", self.name);
            // What a patch adds can be of any place.
            let place = (self.name != crate::JSON_PATCH).then_some(path.as_str());
            out.insert((*name).to_owned(), value.json_at(place)?);
        }
        Ok(Json::Object(out))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(Text::Shared(Arc::from(text)))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}
