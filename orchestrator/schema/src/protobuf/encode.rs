//! Objects into protobuf, back to front: a message's length is known once its fields are written, so nothing is
//! measured beforehand or moved afterwards.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::Wire;
use crate::error::EncodeError;
use crate::model::{Alternative, ProtoSlot, Schema, Struct, Type, TypeRef};
use crate::path::Path;
use crate::scalar::duration;

/// Bytes that grow at the front.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Where the written part starts.
    at: usize,
}

impl Buffer {
    pub fn with_capacity(capacity: usize) -> Self {
        Buffer { bytes: vec![0; capacity], at: capacity }
    }

    pub fn prepend(&mut self, data: &[u8]) {
        if self.at < data.len() {
            let written = self.bytes.len() - self.at;
            let grown = (self.bytes.len() * 2).max(written + data.len());
            let mut bytes = vec![0; grown];
            bytes[grown - written..].copy_from_slice(&self.bytes[self.at..]);
            self.at = grown - written;
            self.bytes = bytes;
        }
        self.at -= data.len();
        self.bytes[self.at..self.at + data.len()].copy_from_slice(data);
    }

    fn written(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn varint(&mut self, mut value: u64) {
        let mut out = [0u8; 10];
        let mut length = 0;
        loop {
            let byte = (value & 0x7f) as u8;
            value >>= 7;
            out[length] = if value == 0 { byte } else { byte | 0x80 };
            length += 1;
            if value == 0 {
                break;
            }
        }
        self.prepend(&out[..length]);
    }

    fn tag(&mut self, number: u32, wire: Wire) {
        let wire = match wire {
            Wire::Varint => 0,
            Wire::Fixed64 => 1,
            Wire::Bytes => 2,
            Wire::Fixed32 => 5,
        };
        self.varint(u64::from(number) << 3 | wire);
    }

    fn varint_field(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.tag(number, Wire::Varint);
    }

    pub fn bytes_field(&mut self, number: u32, data: &[u8]) {
        self.prepend(data);
        self.varint(data.len() as u64);
        self.tag(number, Wire::Bytes);
    }

    pub fn message_field(&mut self, number: u32, body: impl FnOnce(&mut Self)) {
        let end = self.written();
        body(self);
        self.varint((self.written() - end) as u64);
        self.tag(number, Wire::Bytes);
    }

    fn try_message_field<E>(
        &mut self,
        number: u32,
        body: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.written();
        body(self)?;
        self.varint((self.written() - end) as u64);
        self.tag(number, Wire::Bytes);
        Ok(())
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.drain(..self.at);
        self.bytes
    }
}

pub(super) fn message(ty: &TypeRef, v: &Value) -> Result<Vec<u8>, EncodeError> {
    let writer = Writer { schema: ty.schema() };
    let mut buffer = Buffer::with_capacity(1024);
    writer.structure(&mut buffer, ty.def(), v, &Path::Root)?;
    Ok(buffer.finish())
}

struct Writer<'a> {
    schema: &'a Schema,
}

impl Writer<'_> {
    fn structure(
        &self,
        out: &mut Buffer,
        def: &Struct,
        v: &Value,
        path: &Path<'_>,
    ) -> Result<(), EncodeError> {
        let Value::Object(object) = v else {
            return Err(mismatch(path, "an object", v));
        };
        self.slots(out, def, &def.proto, object, path).map(drop)
    }

    /// Writes the fields behind the slots, the last number first. Says whether there were any.
    fn slots(
        &self,
        out: &mut Buffer,
        def: &Struct,
        slots: &[(u32, ProtoSlot)],
        object: &Map<String, Value>,
        path: &Path<'_>,
    ) -> Result<bool, EncodeError> {
        let mut any = false;
        for (number, slot) in slots.iter().rev() {
            match slot {
                ProtoSlot::Field(index) => {
                    let field = &def.fields[*index as usize];
                    if let Some(value) = object.get(field.name.as_ref())
                        && !value.is_null()
                    {
                        any = true;
                        self.field(out, *number, &field.ty, value, &Path::Key(path, &field.name))?;
                    }
                }
                ProtoSlot::Inline(inner) => {
                    let end = out.written();
                    if self.slots(out, def, inner, object, path)? {
                        any = true;
                        out.varint((out.written() - end) as u64);
                        out.tag(*number, Wire::Bytes);
                    }
                }
            }
        }
        Ok(any)
    }

    fn field(
        &self,
        out: &mut Buffer,
        number: u32,
        ty: &Type,
        v: &Value,
        path: &Path<'_>,
    ) -> Result<(), EncodeError> {
        let refuse = |expected| mismatch(path, expected, v);
        match ty {
            Type::Bool => {
                out.varint_field(number, u64::from(v.as_bool().ok_or_else(|| refuse("a boolean"))?))
            }
            Type::Int32 | Type::Int64 => {
                out.varint_field(number, v.as_i64().ok_or_else(|| refuse("an integer"))? as u64);
            }
            Type::Double => {
                let double = v.as_f64().ok_or_else(|| refuse("a number"))?;
                out.prepend(&double.to_le_bytes());
                out.tag(number, Wire::Fixed64);
            }
            Type::String => out.bytes_field(number, text(v, path)?.as_bytes()),
            Type::Bytes => {
                let bytes = STANDARD.decode(text(v, path)?).map_err(|_| refuse("base64"))?;
                out.bytes_field(number, &bytes);
            }
            Type::Time | Type::MicroTime => {
                let at: Timestamp = text(v, path)?.parse().map_err(|_| refuse("a time"))?;
                let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
                if nanos < 0 {
                    seconds -= 1;
                    nanos += 1_000_000_000;
                }
                // Time is to the second on the wire, MicroTime to the microsecond.
                let nanos = if *ty == Type::Time { 0 } else { nanos / 1000 * 1000 };
                out.message_field(number, |out| {
                    out.varint_field(2, nanos as u64);
                    out.varint_field(1, seconds as u64);
                });
            }
            Type::Duration => {
                let nanos = duration::parse(text(v, path)?).ok_or_else(|| refuse("a duration"))?;
                out.message_field(number, |out| out.varint_field(1, nanos as u64));
            }
            Type::Quantity => {
                let text = text(v, path)?;
                out.message_field(number, |out| out.bytes_field(1, text.as_bytes()));
            }
            Type::IntOrString => match (v.as_i64(), v.as_str()) {
                (Some(int), _) => out.message_field(number, |out| {
                    out.bytes_field(3, b"");
                    out.varint_field(2, int as u64);
                    out.varint_field(1, 0);
                }),
                (_, Some(text)) => out.message_field(number, |out| {
                    out.bytes_field(3, text.as_bytes());
                    out.varint_field(2, 0);
                    out.varint_field(1, 1);
                }),
                _ => return Err(refuse("an integer or a string")),
            },
            Type::Raw => {
                let json = serde_json::to_vec(v).map_err(|_| refuse("JSON"))?;
                out.message_field(number, |out| out.bytes_field(1, &json));
            }
            Type::List(item) => {
                let items = v.as_array().ok_or_else(|| refuse("a list"))?;
                for (index, value) in items.iter().enumerate().rev() {
                    self.field(out, number, item, value, &Path::Index(path, index))?;
                }
            }
            Type::WrappedList(item) => {
                let items = v.as_array().ok_or_else(|| refuse("a list"))?;
                out.try_message_field(number, |out| {
                    for (index, value) in items.iter().enumerate().rev() {
                        self.field(out, 1, item, value, &Path::Index(path, index))?;
                    }
                    Ok(())
                })?;
            }
            Type::Map(value_type) => {
                let entries = v.as_object().ok_or_else(|| refuse("an object"))?;
                for (key, value) in entries.iter().rev() {
                    out.try_message_field(number, |out| {
                        self.field(out, 2, value_type, value, &Path::Key(path, key))?;
                        out.bytes_field(1, key.as_bytes());
                        Ok(())
                    })?;
                }
            }
            Type::Struct(id) => {
                let def = self.schema.get(*id);
                out.try_message_field(number, |out| self.structure(out, def, v, path))?;
            }
            Type::SchemaOr(_, id) => {
                out.try_message_field(number, |out| self.alternative(out, ty, *id, v, path))?
            }
            Type::Nullable(inner) => self.field(out, number, inner, v, path)?,
        }
        Ok(())
    }

    /// `JSONSchemaPropsOrBool{allows=1, schema=2}`, `…OrArray{schema=1, jSONSchemas=2}` and
    /// `…OrStringArray{schema=1, property=2}`; they differ in where the schema is.
    fn alternative(
        &self,
        out: &mut Buffer,
        ty: &Type,
        id: crate::StructId,
        v: &Value,
        path: &Path<'_>,
    ) -> Result<(), EncodeError> {
        match v {
            Value::Bool(allows) => out.varint_field(1, u64::from(*allows)),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate().rev() {
                    let path = Path::Index(path, index);
                    let ty = if item.is_string() { Type::String } else { Type::Struct(id) };
                    self.field(out, 2, &ty, item, &path)?;
                }
            }
            Value::Object(_) => {
                // A schema allows what it describes.
                let or_bool = matches!(ty, Type::SchemaOr(Alternative::Bool, _));
                self.field(out, if or_bool { 2 } else { 1 }, &Type::Struct(id), v, path)?;
                if or_bool {
                    out.varint_field(1, 1);
                }
            }
            _ => return Err(mismatch(path, "a schema", v)),
        }
        Ok(())
    }
}

fn text<'v>(v: &'v Value, path: &Path<'_>) -> Result<&'v str, EncodeError> {
    v.as_str().ok_or_else(|| mismatch(path, "a string", v))
}

fn mismatch(path: &Path<'_>, expected: &str, v: &Value) -> EncodeError {
    let found = match v {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    EncodeError::Mismatch { path: path.to_string(), expected: expected.to_owned(), found: found.to_owned() }
}
