//! Protobuf into objects, in one pass. Unknown numbers are skipped, as protobuf wants it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::wire::{Reader, Wire};
use crate::error::DecodeError;
use crate::json::DEPTH_MAX;
use crate::model::{Alternative, ProtoSlot, Schema, Struct, StructId, Type, TypeRef};
use crate::path::Path;
use crate::scalar::{duration, print_micro_time, print_time};

pub(super) fn message(ty: &TypeRef, raw: &[u8]) -> Result<Value, DecodeError> {
    let decoder = Decoder { schema: ty.schema() };
    decoder.structure(ty.def(), raw, &Path::Root, 0)
}

struct Decoder<'a> {
    schema: &'a Schema,
}

/// The value of one occurrence of a field.
enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl Decoder<'_> {
    fn structure(
        &self,
        def: &Struct,
        raw: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        let mut object = Map::new();
        self.slots(def, &def.proto, raw, &mut object, path, depth)?;
        Ok(Value::Object(object))
    }

    fn slots(
        &self,
        def: &Struct,
        slots: &[(u32, ProtoSlot)],
        raw: &[u8],
        object: &mut Map<String, Value>,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep { path: path.to_string(), depth_max: DEPTH_MAX });
        }
        let broken = |reason| DecodeError::Protobuf { path: path.to_string(), reason };
        let mut reader = Reader::new(raw);
        while let Some((number, wire)) = reader.tag().map_err(broken)? {
            let Ok(at) = slots.binary_search_by_key(&number, |(n, _)| *n) else {
                reader.skip(wire).map_err(broken)?;
                continue;
            };
            let payload = match wire {
                Wire::Varint => Payload::Varint(reader.varint().map_err(broken)?),
                Wire::Fixed64 => Payload::Fixed64(reader.fixed64().map_err(broken)?),
                Wire::Bytes => Payload::Bytes(reader.bytes().map_err(broken)?),
                Wire::Fixed32 => return Err(broken("no field has this wire type")),
            };
            match (&slots[at].1, payload) {
                (ProtoSlot::Inline(inner), Payload::Bytes(raw)) => {
                    self.slots(def, inner, raw, object, path, depth + 1)?;
                }
                (ProtoSlot::Inline(_), _) => return Err(broken("a message of the wrong wire type")),
                (ProtoSlot::Field(index), payload) => {
                    let field = &def.fields[*index as usize];
                    let path = Path::Key(path, &field.name);
                    self.field(field, payload, object, &path, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &crate::Field,
        payload: Payload<'_>,
        object: &mut Map<String, Value>,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let broken = |reason| DecodeError::Protobuf { path: path.to_string(), reason };
        match &field.ty {
            Type::List(item) => {
                let slot = entry(object, &field.name, || Value::Array(Vec::new()));
                let Value::Array(items) = slot else {
                    return Err(broken("not a list"));
                };
                match (&**item, payload) {
                    // Packed scalars.
                    (Type::Bool | Type::Int32 | Type::Int64, Payload::Bytes(raw)) => {
                        let mut reader = Reader::new(raw);
                        while !reader.is_empty() {
                            let varint = Payload::Varint(reader.varint().map_err(broken)?);
                            items.push(self.value(item, varint, path, depth)?);
                        }
                    }
                    (Type::Double, Payload::Bytes(raw)) => {
                        let mut reader = Reader::new(raw);
                        while !reader.is_empty() {
                            let double = Payload::Fixed64(reader.fixed64().map_err(broken)?);
                            items.push(self.value(item, double, path, depth)?);
                        }
                    }
                    (item, payload) => {
                        let value = self.value(item, payload, &Path::Index(path, items.len()), depth)?;
                        items.push(value);
                    }
                }
            }
            Type::Map(value_type) => {
                let Payload::Bytes(raw) = payload else {
                    return Err(broken("a map entry of the wrong wire type"));
                };
                let (key, value) = self.map_entry(value_type, raw, path, depth)?;
                let slot = entry(object, &field.name, || Value::Object(Map::new()));
                let Value::Object(entries) = slot else {
                    return Err(broken("not a map"));
                };
                entries.insert(key, value);
            }
            ty => {
                let value = self.value(ty, payload, path, depth)?;
                let absent = value.is_null() || (field.zero_is_absent && is_zero(ty, &value));
                if !absent {
                    object.insert(field.name.clone().into_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn map_entry(
        &self,
        value_type: &Type,
        raw: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(String, Value), DecodeError> {
        let broken = |reason| DecodeError::Protobuf { path: path.to_string(), reason };
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(raw);
        while let Some((number, wire)) = reader.tag().map_err(broken)? {
            match (number, wire) {
                (1, Wire::Bytes) => key = text(reader.bytes().map_err(broken)?, path)?,
                (2, Wire::Bytes) => {
                    let payload = Payload::Bytes(reader.bytes().map_err(broken)?);
                    value = Some(self.value(value_type, payload, &Path::Key(path, &key), depth)?);
                }
                (2, Wire::Varint) => {
                    let payload = Payload::Varint(reader.varint().map_err(broken)?);
                    value = Some(self.value(value_type, payload, &Path::Key(path, &key), depth)?);
                }
                _ => reader.skip(wire).map_err(broken)?,
            }
        }
        Ok((key, value.unwrap_or_else(|| value_type.zero())))
    }

    /// One value. Null means that the message says "none", as an empty time does.
    fn value(
        &self,
        ty: &Type,
        payload: Payload<'_>,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        let broken = |reason| DecodeError::Protobuf { path: path.to_string(), reason };
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep { path: path.to_string(), depth_max: DEPTH_MAX });
        }
        Ok(match (ty, payload) {
            (Type::Bool, Payload::Varint(v)) => Value::Bool(v != 0),
            (Type::Int32, Payload::Varint(v)) => Value::from(v as i32),
            (Type::Int64, Payload::Varint(v)) => Value::from(v as i64),
            (Type::Double, Payload::Fixed64(v)) => {
                let double =
                    Number::from_f64(f64::from_bits(v)).ok_or_else(|| broken("not a finite number"))?;
                Value::Number(double)
            }
            (Type::String, Payload::Bytes(raw)) => Value::String(text(raw, path)?),
            (Type::Bytes, Payload::Bytes(raw)) => Value::String(STANDARD.encode(raw)),
            (Type::Time | Type::MicroTime, Payload::Bytes(raw)) => {
                let [_, seconds, nanos] = numbers(raw).map_err(broken)?;
                if raw.is_empty() {
                    return Ok(Value::Null);
                }
                let at = Timestamp::new(seconds as i64, nanos as i32)
                    .map_err(|_| broken("a time out of range"))?;
                Value::String(if *ty == Type::Time { print_time(at) } else { print_micro_time(at) })
            }
            (Type::Duration, Payload::Bytes(raw)) => {
                let [_, nanos, _] = numbers(raw).map_err(broken)?;
                Value::String(duration::print(nanos as i64))
            }
            (Type::Quantity, Payload::Bytes(raw)) => {
                Value::String(text(first_bytes(raw, 1).map_err(broken)?, path)?)
            }
            (Type::IntOrString, Payload::Bytes(raw)) => {
                let [_, is_text, int] = numbers(raw).map_err(broken)?;
                match is_text {
                    0 => Value::from(int as i32),
                    _ => Value::String(text(first_bytes(raw, 3).map_err(broken)?, path)?),
                }
            }
            (Type::Raw, Payload::Bytes(raw)) => {
                let json = first_bytes(raw, 1).map_err(broken)?;
                if json.is_empty() {
                    return Ok(Value::Null);
                }
                serde_json::from_slice(json).map_err(|_| broken("the carried value is not JSON"))?
            }
            (Type::WrappedList(item), Payload::Bytes(raw)) => {
                let mut items = Vec::new();
                let mut reader = Reader::new(raw);
                while let Some((number, wire)) = reader.tag().map_err(broken)? {
                    match (number, wire) {
                        (1, Wire::Bytes) => {
                            let payload = Payload::Bytes(reader.bytes().map_err(broken)?);
                            items.push(self.value(
                                item,
                                payload,
                                &Path::Index(path, items.len()),
                                depth + 1,
                            )?);
                        }
                        _ => reader.skip(wire).map_err(broken)?,
                    }
                }
                Value::Array(items)
            }
            (Type::Struct(id), Payload::Bytes(raw)) => {
                self.structure(self.schema.get(*id), raw, path, depth)?
            }
            (Type::SchemaOr(alternative, id), Payload::Bytes(raw)) => {
                self.alternative(*alternative, *id, raw, path, depth)?
            }
            _ => return Err(broken("a value of the wrong wire type")),
        })
    }

    fn alternative(
        &self,
        alternative: Alternative,
        id: StructId,
        raw: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        let broken = |reason| DecodeError::Protobuf { path: path.to_string(), reason };
        let schema = Type::Struct(id);
        let (mut allows, mut single, mut many) = (false, None, Vec::new());
        let mut reader = Reader::new(raw);
        while let Some((number, wire)) = reader.tag().map_err(broken)? {
            match (number, wire, alternative) {
                (1, Wire::Varint, Alternative::Bool) => allows = reader.varint().map_err(broken)? != 0,
                (1, Wire::Bytes, Alternative::Schemas | Alternative::Strings)
                | (2, Wire::Bytes, Alternative::Bool) => {
                    let payload = Payload::Bytes(reader.bytes().map_err(broken)?);
                    single = Some(self.value(&schema, payload, path, depth + 1)?);
                }
                (2, Wire::Bytes, _) => {
                    let ty = if alternative == Alternative::Schemas { &schema } else { &Type::String };
                    let payload = Payload::Bytes(reader.bytes().map_err(broken)?);
                    many.push(self.value(ty, payload, &Path::Index(path, many.len()), depth + 1)?);
                }
                _ => reader.skip(wire).map_err(broken)?,
            }
        }
        Ok(match (single, alternative) {
            (Some(schema), _) => schema,
            (None, Alternative::Bool) => Value::Bool(allows),
            (None, _) => Value::Array(many),
        })
    }
}

/// The entry of a key, made if need be, without a key of its own if it is there.
fn entry<'m>(object: &'m mut Map<String, Value>, key: &str, make: impl FnOnce() -> Value) -> &'m mut Value {
    if !object.contains_key(key) {
        object.insert(key.to_owned(), make());
    }
    object.entry(key).or_insert(Value::Null)
}

fn text(raw: &[u8], path: &Path<'_>) -> Result<String, DecodeError> {
    let broken = || DecodeError::Protobuf { path: path.to_string(), reason: "text is not UTF-8" };
    std::str::from_utf8(raw).map(str::to_owned).map_err(|_| broken())
}

/// The varints of a small message at numbers 0 to 2; absent ones are zero.
fn numbers(raw: &[u8]) -> Result<[u64; 3], &'static str> {
    let mut out = [0; 3];
    let mut reader = Reader::new(raw);
    while let Some((number, wire)) = reader.tag()? {
        match (out.get_mut(number as usize), wire) {
            (Some(slot), Wire::Varint) => *slot = reader.varint()?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(out)
}

/// The bytes at one number of a small message; empty if absent.
fn first_bytes(raw: &[u8], wanted: u32) -> Result<&[u8], &'static str> {
    let mut out: &[u8] = &[];
    let mut reader = Reader::new(raw);
    while let Some((number, wire)) = reader.tag()? {
        match wire {
            Wire::Bytes if number == wanted => out = reader.bytes()?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(out)
}

/// Whether a scalar is its Go type's zero.
fn is_zero(ty: &Type, v: &Value) -> bool {
    match (ty, v) {
        (Type::Bool, Value::Bool(b)) => !b,
        (Type::Int32 | Type::Int64 | Type::Double, Value::Number(n)) => n.as_f64() == Some(0.0),
        (Type::IntOrString, Value::Number(n)) => n.as_i64() == Some(0),
        (Type::String | Type::Bytes | Type::Quantity | Type::IntOrString, Value::String(s)) => s.is_empty(),
        (Type::Duration, Value::String(s)) => s == "0s",
        _ => false,
    }
}
