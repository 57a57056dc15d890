//! Values: JSON is looked at where it lies and converted as far as an expression goes into it.

mod compare;
mod convert;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use penstock_schema::Quantity;
use serde_json::Value as Json;

use crate::library::authorizer::Access;
use crate::library::formats::Format;
use crate::signatures as names;
use crate::types::Type;

pub(crate) use compare::{equal, order};
pub(crate) use convert::from_json;

/// A value. What is borrowed is of the variables or of the program.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    /// Made by an expression: `Object.spec{...}`.
    Object(Arc<Object<'a>>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Arc<str>),
    Opaque(Opaque),
}

/// A string of the variables or one made on the way.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    /// JSON with items of a type.
    Json(&'a [Json], Type),
    Made(Arc<Vec<Value<'a>>>),
}

#[derive(Clone)]
pub enum Map<'a> {
    /// JSON: of an object, a map, or of a type that is not known.
    Json(&'a serde_json::Map<String, Json>, Type),
    Made(Arc<BTreeMap<Key, Value<'a>>>),
}

/// An object as an expression writes it.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    pub(crate) name: &'a str,
    pub(crate) fields: Vec<(&'a str, Value<'a>)>,
}

/// What can be a key. Numbers that are equal are the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i128),
    String(Arc<str>),
}

/// Of a library.
#[derive(Clone, Debug)]
pub enum Opaque {
    Quantity(Quantity),
    Url(Arc<url::Url>),
    Ip(IpAddr),
    /// Address and length of the prefix.
    Cidr(IpAddr, u8),
    Semver(Arc<semver::Version>),
    Format(Format),
    Access(Access),
}

// === impl Value ===

impl<'a> Value<'a> {
    /// JSON without a schema.
    pub fn of(json: &'a Json) -> Self {
        from_json(json, &Type::Dyn)
    }

    /// JSON by its schema: times, durations and bytes are what their format says, numbers what their type says.
    pub fn of_type(json: &'a Json, ty: &Type) -> Self {
        from_json(json, ty)
    }

    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Value::String(Text::Shared(text.into()))
    }

    pub(crate) fn list(items: Vec<Value<'a>>) -> Self {
        Value::List(List::Made(Arc::new(items)))
    }

    pub(crate) fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Object(object) => object.name,
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Opaque(opaque) => opaque.type_name(),
        }
    }

    /// How long what it holds is: characters, items, entries; 1 for anything else.
    pub(crate) fn length(&self) -> u64 {
        let length = match self {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            _ => 1,
        };
        length as u64
    }

    /// Whether it is what an unset field would be.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Double(value) => *value == 0.0,
            Value::String(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::Duration(nanos) => *nanos == 0,
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Optional(inner) => inner.is_none(),
            _ => false,
        }
    }
}

// === impl Text ===

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// === impl List ===

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            List::Json(items, ty) => items.get(index).map(|item| from_json(item, ty)),
            List::Made(items) => items.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

// === impl Map ===

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json(fields, _) => fields.len(),
            Map::Made(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key; a field of an object under the name that expressions have for it.
    pub fn get(&self, key: &Key) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Json(fields, Type::Object(shape)), Key::String(name)) => match shape.field(name) {
                Some(field) => fields.get(&field.key).map(|json| from_json(json, &field.ty)),
                None => fields.get(&**name).map(|json| from_json(json, &Type::Dyn)),
            },
            (Map::Json(fields, Type::Map(_, value)), Key::String(name)) => {
                fields.get(&**name).map(|json| from_json(json, value))
            }
            (Map::Json(fields, _), Key::String(name)) => fields.get(&**name).map(Value::of),
            (Map::Json(..), _) => None,
            (Map::Made(entries), key) => entries.get(key).cloned(),
        }
    }

    /// Keys in their order.
    pub fn keys(&self) -> Vec<Key> {
        match self {
            Map::Json(fields, _) => fields.keys().map(|key| Key::String(key.as_str().into())).collect(),
            Map::Made(entries) => entries.keys().cloned().collect(),
        }
    }
}

impl fmt::Debug for Map<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Map::Json(fields, _) => fmt::Debug::fmt(fields, f),
            Map::Made(entries) => fmt::Debug::fmt(entries, f),
        }
    }
}

// === impl Key ===

impl Key {
    pub(crate) fn of(value: &Value<'_>) -> Option<Key> {
        match value {
            Value::Bool(value) => Some(Key::Bool(*value)),
            Value::Int(value) => Some(Key::Int(i128::from(*value))),
            Value::Uint(value) => Some(Key::Int(i128::from(*value))),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e18 => {
                Some(Key::Int(*value as i128))
            }
            Value::String(text) => Some(Key::String(match text {
                Text::Borrowed(text) => (*text).into(),
                Text::Shared(text) => text.clone(),
            })),
            _ => None,
        }
    }

    pub(crate) fn value<'a>(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => match i64::try_from(*value) {
                Ok(int) => Value::Int(int),
                Err(_) => Value::Uint(u64::try_from(*value).unwrap_or_default()),
            },
            Key::String(text) => Value::String(Text::Shared(text.clone())),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Bool(value) => write!(f, "{value}"),
            Key::Int(value) => write!(f, "{value}"),
            Key::String(text) => f.write_str(text),
        }
    }
}

// === impl Opaque ===

impl Opaque {
    fn type_name(&self) -> &'static str {
        match self {
            Opaque::Quantity(_) => names::QUANTITY,
            Opaque::Url(_) => names::URL,
            Opaque::Ip(_) => names::IP,
            Opaque::Cidr(..) => names::CIDR,
            Opaque::Semver(_) => names::SEMVER,
            Opaque::Format(_) => names::FORMAT,
            Opaque::Access(access) => access.type_name(),
        }
    }
}
