//! How the parts of a value belong together, read from its type: what has one owner as a whole, and what is owned
//! part by part.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::element::{Element, Literal};
use crate::model::{Field, ListKind, Schema, Struct, Text, Type, TypeRef};

/// Values nested deeper than this are owned as a whole. Sets are nested as deep as what they describe and stand some
/// levels down in an object themselves, so that this keeps them within what decoders take.
const DEPTH_OWNED_MAX: usize = 96;

/// A place in a type.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    schema: &'a Schema,
    ty: &'a Type,
    /// The field whose type it is; none for items, values of maps, and the object itself.
    field: Option<&'a Field>,
    /// Within a custom resource, where what is not described is owned by what it looks like.
    custom: bool,
    depth: usize,
}

/// What a value is, with its parts. A value that is not of its type's form is a leaf.
pub(crate) enum Parts<'a, 'v> {
    /// Owned as a whole.
    Leaf,
    /// Fields, or keys of a map.
    Fields(&'v Map<String, Value>),
    /// Items that can be told apart.
    Items(Items<'a>, &'v [Value]),
}

/// How items are told apart.
#[derive(Clone, Copy)]
pub(crate) enum Items<'a> {
    /// By their value.
    Set,
    /// By the value of a field, as patches of old do.
    MergeKey(&'a Text),
    /// By the values of some fields.
    Keys(&'a [Text]),
}

/// How a type's values are owned.
enum Shape<'a> {
    Whole,
    Fields,
    Items(Items<'a>),
    /// By what the value looks like: objects by part, all else as a whole.
    Free,
}

// === impl Place ===

impl<'a> Place<'a> {
    /// The object itself.
    pub fn root(ty: &'a TypeRef, as_type: &'a Type) -> Place<'a> {
        let custom = ty.def().shape_only;
        Place { schema: ty.schema(), ty: as_type, field: None, custom, depth: 0 }
    }

    fn shape(&self) -> Shape<'a> {
        let list = self.field.map_or(&ListKind::Unset, |field| &field.list);
        if *list == ListKind::Atomic || self.depth > DEPTH_OWNED_MAX {
            return Shape::Whole;
        }
        match self.ty.bare() {
            Type::Struct(id) if self.schema.get(*id).atomic => Shape::Whole,
            Type::Struct(_) | Type::Map(_) => Shape::Fields,
            Type::List(_) | Type::WrappedList(_) => match (list, self.field) {
                (ListKind::Set, _) => Shape::Items(Items::Set),
                (ListKind::Map(keys), _) => Shape::Items(Items::Keys(keys)),
                (_, Some(field)) if field.patch_merge && field.patch_merge_key.is_empty() => {
                    Shape::Items(Items::Set)
                }
                (_, Some(field)) if field.patch_merge => {
                    Shape::Items(Items::MergeKey(&field.patch_merge_key))
                }
                _ => Shape::Whole,
            },
            Type::Raw if self.custom => Shape::Free,
            _ => Shape::Whole,
        }
    }

    /// A value of this place with its parts. Null has none, so it is taken for what `other`, its counterpart, is.
    pub fn parts<'v>(&self, value: &'v Value, other: Option<&Value>) -> Parts<'a, 'v> {
        static NO_FIELDS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let shape = self.shape();
        let looks = if value.is_null() { other.unwrap_or(value) } else { value };
        match (shape, value, looks) {
            (Shape::Fields | Shape::Free, Value::Object(fields), _) => Parts::Fields(fields),
            (Shape::Fields, Value::Null, _) | (Shape::Free, Value::Null, Value::Object(_)) => {
                Parts::Fields(&NO_FIELDS)
            }
            (Shape::Items(by), Value::Array(items), _) => Parts::Items(by, items),
            (Shape::Items(by), Value::Null, _) => Parts::Items(by, &[]),
            _ => Parts::Leaf,
        }
    }

    /// The struct of a value, whether it is owned as a whole or not.
    fn def(&self) -> Option<&'a Struct> {
        match self.ty.bare() {
            Type::Struct(id) => Some(self.schema.get(*id)),
            _ => None,
        }
    }

    /// Where a field or the value of a key is; none where the type has no such thing.
    pub fn of_field(&self, name: &str) -> Option<Place<'a>> {
        static ANYTHING: Type = Type::Raw;
        let inner = |ty, field, custom| Some(Place { ty, field, custom, depth: self.depth + 1, ..*self });
        match self.ty.bare() {
            Type::Struct(id) => {
                let def = self.schema.get(*id);
                match def.field(name) {
                    Some(field) => inner(&field.ty, Some(field), def.shape_only),
                    None if def.preserve_unknown => inner(&ANYTHING, None, true),
                    None => None,
                }
            }
            Type::Map(value) => inner(value, None, self.custom),
            Type::Raw => inner(&ANYTHING, None, self.custom),
            _ => None,
        }
    }

    /// Where items are.
    pub fn of_item(&self) -> Option<Place<'a>> {
        match self.ty.bare() {
            Type::List(item) | Type::WrappedList(item) => {
                Some(Place { ty: item, field: None, depth: self.depth + 1, ..*self })
            }
            _ => None,
        }
    }

    /// Whether the type itself names the field.
    pub fn declares(&self, name: &str) -> bool {
        self.def().is_some_and(|def| def.field(name).is_some())
    }

    /// Whether the field is always there, in the API's own types if not in their JSON: it appears and goes with its
    /// parent, and nobody owns it for having made it.
    pub fn always_has(&self, name: &str) -> bool {
        let Some(field) = self.def().filter(|def| !def.shape_only).and_then(|def| def.field(name)) else {
            return false;
        };
        field.required || (field.zero_is_absent && matches!(field.ty, Type::Struct(_)))
    }

    /// The element of an item of this list.
    ///
    /// # Errors
    /// An item that cannot be told apart from others, in upstream's words.
    pub fn element(&self, by: Items<'_>, item: &Value) -> Result<Element, String> {
        match by {
            Items::Set => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null".into())
                }
                scalar => Ok(Element::Value(Literal::of(scalar))),
            },
            Items::MergeKey(key) => self.keyed(std::slice::from_ref(key), item),
            Items::Keys(keys) => self.keyed(keys, item),
        }
    }

    fn keyed(&self, keys: &[Text], item: &Value) -> Result<Element, String> {
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let item_place = self.of_item();
        let default = |key: &str| item_place.and_then(|p| p.def()?.field(key)?.default_value());
        let mut found: Vec<(String, Literal)> = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(value) = fields.get(key.as_ref()).cloned().or_else(|| default(key)) {
                found.push((key.to_string(), Literal::of(&value)));
            }
        }
        if found.is_empty() {
            let names: Vec<String> = keys.iter().map(|key| format!("{:?}", key.as_ref())).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                 values for any key fields)",
                names.join(" ")
            ));
        }
        found.sort();
        Ok(Element::Key(found))
    }
}
