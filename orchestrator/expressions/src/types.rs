//! The types of CEL, and how a schema gives its own.

use std::fmt;
use std::sync::Arc;

/// A type. Comparisons of objects go by their names.
#[derive(Clone, Default)]
pub enum Type {
    /// Known when evaluated.
    #[default]
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    Object(Arc<dyn Shape>),
    /// Of a library, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// What `type(x)` gives.
    Type,
    /// Of a signature: whatever stands in its place, the same everywhere.
    Parameter(u8),
}

/// What is known of an object's fields.
pub trait Shape: Send + Sync {
    /// As errors name it.
    fn name(&self) -> &str;
    /// The field that expressions call `name`.
    fn field(&self, name: &str) -> Option<Field>;
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON, where that is no name of an expression's (`foo-bar` is `foo__dash__bar`).
    pub key: String,
    pub ty: Type,
}

// === impl Type ===

impl Type {
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }

    /// Whether a value of type `given` may stand where this one is wanted.
    pub fn admits(&self, given: &Type) -> bool {
        match (self, given) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Object(_) | Type::Opaque(_) | Type::Duration | Type::Timestamp, Type::Null) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a.admits(b),
            (Type::Map(a, b), Type::Map(c, d)) => a.admits(c) && b.admits(d),
            (a, b) => a == b,
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a == b,
            (Type::Map(a, b), Type::Map(c, d)) => a == c && b == d,
            (Type::Object(a), Type::Object(b)) => a.name() == b.name(),
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Parameter(a), Type::Parameter(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Type::Dyn => "dyn",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::List(item) => return write!(f, "list({item})"),
            Type::Map(key, value) => return write!(f, "map({key}, {value})"),
            Type::Optional(inner) => return write!(f, "optional_type({inner})"),
            Type::Object(shape) => shape.name(),
            Type::Opaque(name) => name,
            Type::Type => "type",
            Type::Parameter(letter) => return write!(f, "{}", char::from(*letter)),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A shape of fields that are all known.
pub struct Record {
    name: String,
    fields: Vec<(String, Type)>,
}

// === impl Record ===

impl Record {
    /// The type of objects with these fields.
    pub fn of<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Type)>) -> Type {
        let fields = fields.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect();
        Type::Object(Arc::new(Record { name: name.to_owned(), fields }))
    }
}

impl Shape for Record {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: &str) -> Option<Field> {
        let (key, ty) = self.fields.iter().find(|(key, _)| key == name)?;
        Some(Field { key: key.clone(), ty: ty.clone() })
    }
}

/// The type of objects that expressions make under a name; what their fields are is seen when they are used.
pub fn made_type(name: &str) -> Type {
    Type::Object(Arc::new(Made(name.to_owned())))
}

struct Made(String);

impl Shape for Made {
    fn name(&self) -> &str {
        &self.0
    }

    fn field(&self, name: &str) -> Option<Field> {
        Some(Field { key: name.to_owned(), ty: Type::Dyn })
    }
}
