//! Objects of any type of the schema, from a seed. Every field has a chance to be there; every value is in the
//! normal form the decoders leave, so that a round trip must give the very same object.

use penstock_schema::{Alternative, Map, Schema, Struct, Type, TypeRef, Value};

/// A small generator (splitmix64); one seed, one object.
pub struct Source(pub u64);

impl Source {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    fn text(&mut self) -> String {
        const WORDS: &[&str] =
            &["a", "web-0", "grüße", "10.0.0.1", "\"quoted\"\n", "kubernetes.io/os", "日本"];
        WORDS[self.below(WORDS.len() as u64) as usize].to_owned()
    }
}

/// An object of the type.
pub fn object(ty: &TypeRef, source: &mut Source) -> Value {
    structure(ty.schema(), ty.def(), source, 0)
}

fn structure(schema: &Schema, def: &Struct, source: &mut Source, depth: u64) -> Value {
    let mut out = Map::new();
    for field in def.fields.iter() {
        // What a kind is, protobuf says in the envelope only.
        if !def.kinds.is_empty() && (field.name == "apiVersion" || field.name == "kind") {
            continue;
        }
        // Sparser with depth, or recursive types would never end.
        if source.below(2 + depth * 2) != 0 {
            continue;
        }
        out.insert(field.name.to_string(), value(schema, &field.ty, source, depth + 1));
    }
    Value::Object(out)
}

fn value(schema: &Schema, ty: &Type, source: &mut Source, depth: u64) -> Value {
    let repeat = |source: &mut Source| 1 + source.below(2);
    match ty {
        Type::Bool => Value::Bool(true),
        Type::Int32 => Value::from([1, -1, i32::MAX, i32::MIN, 443][source.below(5) as usize]),
        Type::Int64 => Value::from([1, -1, i64::MAX, i64::MIN, 300][source.below(5) as usize]),
        Type::Double => Value::from(source.below(1000) as f64 + 0.5),
        Type::String => Value::from(source.text()),
        Type::Bytes => Value::from(["AA==", "c2VjcmV0", "/+8="][source.below(3) as usize]),
        Type::Time => Value::from(["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"][source.below(2) as usize]),
        Type::MicroTime => Value::from("2026-01-02T03:04:05.000600Z"),
        Type::Duration => Value::from("1m30s"),
        Type::Quantity => Value::from(["500m", "1Gi", "12k"][source.below(3) as usize]),
        Type::IntOrString => [Value::from(8080), Value::from("http")][source.below(2) as usize].clone(),
        Type::Raw => {
            serde_json::json!({"f:metadata": {".": {}, "k:{\"name\":\"a\"}": null}, "n": [1, 2.5, "x"]})
        }
        Type::List(item) | Type::WrappedList(item) => {
            (0..repeat(source)).map(|_| value(schema, item, source, depth)).collect()
        }
        Type::Map(inner) => {
            let count = repeat(source);
            let entries = (0..count).map(|n| (format!("key-{n}"), value(schema, inner, source, depth)));
            Value::Object(entries.collect())
        }
        Type::Nullable(inner) => value(schema, inner, source, depth),
        Type::Struct(id) => structure(schema, schema.get(*id), source, depth),
        Type::SchemaOr(alternative, id) => match (source.below(2), alternative) {
            (0, Alternative::Bool) => Value::Bool(source.below(2) == 0),
            (0, Alternative::Schemas) => {
                Value::Array(vec![structure(schema, schema.get(*id), source, depth + 1)])
            }
            (0, Alternative::Strings) => Value::Array(vec![Value::from(source.text())]),
            _ => structure(schema, schema.get(*id), source, depth + 1),
        },
    }
}
