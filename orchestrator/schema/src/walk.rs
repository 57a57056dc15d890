//! The one decoder of documents: a serde seed driven by a type.
//!
//! JSON bytes, YAML events and already parsed values all go through it in a single pass, so all three know the
//! same fields, refuse the same mistakes and leave the same normal form: unknown fields and nulls dropped,
//! scalars normalised.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::DecodeError;
use crate::json::{DEPTH_MAX, VALUES_MAX};
use crate::model::{Alternative, Field, Schema, Struct, Type, TypeRef};
use crate::path::Path;
use crate::scalar::{self, Refusal, Scalar};
use crate::{Decoded, Issue};

/// What a walk collects on its way.
#[derive(Default)]
struct Found {
    issues: Vec<Issue>,
    /// The reason of the stop; serde carries strings only.
    error: Option<DecodeError>,
    values: usize,
    lenient: bool,
}

/// Decodes whatever `deserializer` yields as `ty`. `other` names an error that is not ours: broken syntax.
pub(crate) fn decode<'de, D: Deserializer<'de>>(
    ty: &TypeRef,
    deserializer: D,
    lenient: bool,
    other: impl FnOnce(D::Error) -> DecodeError,
) -> Result<Decoded, DecodeError> {
    decode_as(ty.schema(), &Type::Struct(ty.id()), deserializer, lenient, other)
}

/// As [`decode`], as a type that is no struct.
pub(crate) fn decode_as<'de, D: Deserializer<'de>>(
    schema: &Schema,
    root: &Type,
    deserializer: D,
    lenient: bool,
    other: impl FnOnce(D::Error) -> DecodeError,
) -> Result<Decoded, DecodeError> {
    let mut found = Found { lenient, ..Found::default() };
    let seed = Seed { schema, ty: root, owner: None, path: &Path::Root, depth: 0, found: &mut found };
    match seed.deserialize(deserializer) {
        Ok(Value::Null) => Ok(Decoded { object: Value::Object(Map::new()), issues: found.issues }),
        Ok(object) => Ok(Decoded { object, issues: found.issues }),
        Err(error) => Err(found.error.take().unwrap_or_else(|| other(error))),
    }
}

/// YAML 1.1's key whose value, an alias as a rule, lends the fields that are not given.
const MERGE_KEY: &str = "<<";

fn merge_absent(out: &mut Map<String, Value>, merged: Value) {
    if let Value::Object(fields) = merged {
        for (name, value) in fields {
            out.entry(name).or_insert(value);
        }
    }
}

struct Seed<'a> {
    schema: &'a Schema,
    ty: &'a Type,
    /// The struct the value is a field of; none for the document itself.
    owner: Option<&'a Struct>,
    path: &'a Path<'a>,
    depth: usize,
    found: &'a mut Found,
}

impl Seed<'_> {
    fn stop<E: Error>(self, error: DecodeError) -> E {
        self.found.error = Some(error);
        E::custom("stopped")
    }

    /// Whether values of another type pass.
    fn shape_only(&self) -> bool {
        self.owner.is_some_and(|owner| owner.shape_only)
    }

    fn mismatch<E: Error>(self, found: &'static str) -> E {
        let owner = self.owner.map_or("", |def| def.name.as_ref());
        let owner = owner.rsplit('.').next().unwrap_or_default().to_owned();
        let error = DecodeError::Type {
            owner,
            path: self.path.to_string(),
            expected: self.ty.describe(self.schema),
            found: found.to_owned(),
        };
        self.stop(error)
    }

    fn scalar<E: Error>(self, scalar: Scalar<'_>) -> Result<Value, E> {
        if self.shape_only() {
            let lenient = self.found.lenient;
            let read = lenient.then(|| scalar::accept(self.ty, scalar.clone(), true));
            return Ok(read.and_then(Result::ok).unwrap_or_else(|| scalar.into_value()));
        }
        let kind = scalar.kind();
        match scalar::accept(self.ty, scalar, self.found.lenient) {
            Ok(value) => Ok(value),
            Err(Refusal::Type) => Err(self.mismatch(kind)),
            Err(Refusal::Form(reason)) => {
                let path = self.path.to_string();
                Err(self.stop(DecodeError::Form { path, reason }))
            }
        }
    }

    fn list<'de, A: SeqAccess<'de>>(self, mut seq: A, item: &Type) -> Result<Value, A::Error> {
        let mut out = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        loop {
            let path = Path::Index(self.path, out.len());
            let seed = Seed {
                schema: self.schema,
                ty: item,
                owner: self.owner,
                path: &path,
                depth: self.depth + 1,
                found: &mut *self.found,
            };
            match seq.next_element_seed(seed)? {
                // Go reads a null item as the zero of its type.
                Some(Value::Null) if !self.shape_only() => out.push(item.zero()),
                Some(value) => out.push(value),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    /// An object with free keys. Null values are kept only where anything is allowed.
    fn map<'de, A: MapAccess<'de>>(self, mut map: A, value_type: &Type) -> Result<Value, A::Error> {
        let (mut out, mut lent) = (Map::new(), Map::new());
        while let Some(key) = map.next_key_seed(AnyKey)? {
            let path = Path::Key(self.path, &key);
            let seed = Seed {
                schema: self.schema,
                ty: value_type,
                owner: self.owner,
                path: &path,
                depth: self.depth + 1,
                found: &mut *self.found,
            };
            if key == MERGE_KEY && seed.found.lenient {
                let merged = map.next_value_seed(Seed { ty: self.ty, ..seed })?;
                merge_absent(&mut lent, merged);
                continue;
            }
            let value = map.next_value_seed(seed)?;
            if value.is_null() && !value_type.keeps_null() {
                continue;
            }
            if out.contains_key(key.as_ref()) {
                self.found.issues.push(Issue::Duplicate { path: path.to_string() });
            }
            out.insert(key.into_owned(), value);
        }
        merge_absent(&mut out, Value::Object(lent));
        Ok(Value::Object(out))
    }

    fn structure<'de, A: MapAccess<'de>>(self, mut map: A, def: &Struct) -> Result<Value, A::Error> {
        let (mut out, mut lent) = (Map::new(), Map::new());
        let mut seen = Seen::new(def.fields.len());
        while let Some(key) = map.next_key_seed(FieldKey(def))? {
            let (name, field) = match key {
                Key::Known(index) => (def.fields[index].name.as_ref(), Some((index, &def.fields[index]))),
                Key::Unknown(ref name) => (name.as_str(), None),
            };
            let path = Path::Key(self.path, name);
            let Some((index, field)) = field else {
                if name == MERGE_KEY && self.found.lenient {
                    let seed = Seed {
                        schema: self.schema,
                        ty: self.ty,
                        owner: self.owner,
                        path: &path,
                        depth: self.depth + 1,
                        found: &mut *self.found,
                    };
                    let merged = map.next_value_seed(seed)?;
                    merge_absent(&mut lent, merged);
                } else if def.preserve_unknown {
                    let seed = Seed {
                        schema: self.schema,
                        ty: &Type::Raw,
                        owner: Some(def),
                        path: &path,
                        depth: self.depth + 1,
                        found: &mut *self.found,
                    };
                    let value = map.next_value_seed(seed)?;
                    out.insert(name.to_owned(), value);
                } else {
                    self.found.issues.push(Issue::Unknown { path: path.to_string() });
                    map.next_value::<IgnoredAny>()?;
                }
                continue;
            };
            if !seen.first_time(index) {
                self.found.issues.push(Issue::Duplicate { path: path.to_string() });
            }
            let seed = Seed {
                schema: self.schema,
                ty: &field.ty,
                owner: Some(def),
                path: &path,
                depth: self.depth + 1,
                found: &mut *self.found,
            };
            match map.next_value_seed(seed)? {
                Value::Null if !(def.shape_only && field.ty.keeps_null()) => {
                    out.remove(field.name.as_ref());
                }
                value => {
                    out.insert(field.name.clone().into_owned(), value);
                }
            }
        }
        merge_absent(&mut out, Value::Object(lent));
        Ok(Value::Object(out))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.ty = self.ty.bare();
        self.found.values += 1;
        if self.depth > DEPTH_MAX {
            let path = self.path.to_string();
            return Err(self.stop(DecodeError::TooDeep { path, depth_max: DEPTH_MAX }));
        }
        if self.found.values > VALUES_MAX {
            return Err(self.stop(DecodeError::TooMany { values_max: VALUES_MAX }));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        self.scalar(Scalar::Bool(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        self.scalar(Scalar::Int(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        self.scalar(i64::try_from(v).map_or(Scalar::Unsigned(v), Scalar::Int))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        self.scalar(Scalar::Float(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        self.scalar(Scalar::Str(Cow::Borrowed(v)))
    }

    fn visit_string<E: Error>(self, v: String) -> Result<Value, E> {
        self.scalar(Scalar::Str(Cow::Owned(v)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        match self.ty {
            Type::List(item) | Type::WrappedList(item) => self.list(seq, item),
            Type::Raw => self.list(seq, &Type::Raw),
            Type::SchemaOr(Alternative::Schemas, id) => self.list(seq, &Type::Struct(*id)),
            Type::SchemaOr(Alternative::Strings, _) => self.list(seq, &Type::String),
            _ if self.shape_only() => self.list(seq, &Type::Raw),
            _ => Err(self.mismatch("array")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        match self.ty {
            Type::Struct(id) | Type::SchemaOr(_, id) => {
                let def = self.schema.get(*id);
                self.structure(map, def)
            }
            Type::Map(value) => self.map(map, value),
            Type::Raw => self.map(map, &Type::Raw),
            _ if self.shape_only() => self.map(map, &Type::Raw),
            _ => Err(self.mismatch("object")),
        }
    }
}

/// Which fields were met. A bit each for structs of usual size.
struct Seen {
    bits: u128,
    more: Vec<bool>,
}

impl Seen {
    fn new(fields: usize) -> Seen {
        Seen { bits: 0, more: vec![false; fields.saturating_sub(128)] }
    }

    fn first_time(&mut self, index: usize) -> bool {
        if index >= 128 {
            return !std::mem::replace(&mut self.more[index - 128], true);
        }
        let bit = 1u128 << index;
        let first = self.bits & bit == 0;
        self.bits |= bit;
        first
    }
}

/// A key of a struct: its field's index, without an allocation, or an unknown name.
enum Key {
    Known(usize),
    Unknown(String),
}

struct FieldKey<'a>(&'a Struct);

impl<'de> DeserializeSeed<'de> for FieldKey<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl FieldKey<'_> {
    fn find(&self, name: &str) -> Key {
        let by_name = |field: &Field| field.name.as_ref().cmp(name);
        match self.0.fields.binary_search_by(by_name) {
            Ok(index) => Key::Known(index),
            Err(_) => Key::Unknown(name.to_owned()),
        }
    }
}

impl Visitor<'_> for FieldKey<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Key, E> {
        Ok(self.find(v))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Key, E> {
        Ok(self.find(if v { "true" } else { "false" }))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Key, E> {
        Ok(self.find(&v.to_string()))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Key, E> {
        Ok(self.find(&v.to_string()))
    }
}

/// A key of a map. YAML may give scalars that are no strings.
struct AnyKey;

impl<'de> DeserializeSeed<'de> for AnyKey {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyKey {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_owned()))
    }

    fn visit_string<E: Error>(self, v: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(if v { "true" } else { "false" }))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_string()))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_string()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_string()))
    }
}
