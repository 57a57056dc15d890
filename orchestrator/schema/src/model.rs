//! The data model of the schema: structs, fields, types. One set of them is a [`Schema`]; a handle to one struct
//! is a [`TypeRef`].
//!
//! Strings of the built-in table are slices of the committed text; strings of a CRD's schema are its own. `Cow`
//! holds both, so the engine does not see the difference.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// A string of the table (borrowed) or of a CRD (owned).
pub type Text = Cow<'static, str>;

/// Group, version and kind. The core group is the empty string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// For example `apps`; empty for the core group.
    pub group: String,
    /// For example `v1`.
    pub version: String,
    /// For example `Deployment`.
    pub kind: String,
}

/// A struct's index in its [`Schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StructId(pub(crate) u32);

/// The type of a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A JSON integer that fits 32 bits.
    Int32,
    /// A JSON integer that fits 64 bits.
    Int64,
    /// A JSON number.
    Double,
    /// A JSON string.
    String,
    /// A base64 string in JSON, raw bytes in protobuf.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with six digits of fraction.
    MicroTime,
    /// A Go duration string such as `1h2m3s`.
    Duration,
    /// A resource quantity string such as `500m`; a JSON number is accepted and becomes a string.
    Quantity,
    /// A 32-bit integer or a string.
    IntOrString,
    /// Any JSON at all, carried as its text in protobuf (FieldsV1, RawExtension, JSON).
    Raw,
    /// A list; in protobuf a repeated field.
    List(Box<Type>),
    /// A list that protobuf wraps into a message of its own with the items at number 1 (ExtraValue, Verbs).
    WrappedList(Box<Type>),
    /// An object with free keys.
    Map(Box<Type>),
    /// An object with the fields of a struct.
    Struct(StructId),
    /// A JSON Schema or something else in its place; the id is JSONSchemaProps.
    SchemaOr(Alternative, StructId),
    /// Of a custom resource: null is a value of its own, and kept.
    Nullable(Box<Type>),
}

impl Type {
    /// The type as upstream's messages name it, such as `int32` or `v1.PodSpec`.
    pub fn describe(&self, schema: &Schema) -> String {
        match self {
            Type::Bool => "bool".into(),
            Type::Int32 => "int32".into(),
            Type::Int64 => "int64".into(),
            Type::Double => "float64".into(),
            Type::String => "string".into(),
            Type::Bytes => "[]uint8".into(),
            Type::Time => "v1.Time".into(),
            Type::MicroTime => "v1.MicroTime".into(),
            Type::Duration => "v1.Duration".into(),
            Type::Quantity => "resource.Quantity".into(),
            Type::IntOrString => "intstr.IntOrString".into(),
            Type::Raw => "runtime.RawExtension".into(),
            Type::List(item) | Type::WrappedList(item) => format!("[]{}", item.describe(schema)),
            Type::Map(value) => format!("map[string]{}", value.describe(schema)),
            Type::Struct(id) => last_two(&schema.get(*id).name).to_owned(),
            Type::SchemaOr(_, _) => "v1.JSONSchemaProps".into(),
            Type::Nullable(inner) => inner.describe(schema),
        }
    }

    /// The type of what is not null.
    pub fn bare(&self) -> &Type {
        match self {
            Type::Nullable(inner) => inner,
            other => other,
        }
    }

    /// Whether null is a value of the type.
    pub(crate) fn keeps_null(&self) -> bool {
        matches!(self, Type::Nullable(_) | Type::Raw)
    }

    /// The value Go would hold for a null of this type.
    pub(crate) fn zero(&self) -> Value {
        match self {
            Type::Bool => Value::Bool(false),
            Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => Value::from(0),
            Type::String | Type::Bytes => Value::from(""),
            Type::Quantity => Value::from("0"),
            Type::Duration => Value::from("0s"),
            Type::Struct(_) | Type::Map(_) => Value::Object(serde_json::Map::new()),
            Type::List(_) | Type::WrappedList(_) => Value::Array(Vec::new()),
            Type::Time | Type::MicroTime | Type::Raw | Type::SchemaOr(..) | Type::Nullable(_) => Value::Null,
        }
    }
}

/// `v1.PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn last_two(name: &str) -> &str {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    match dots.nth(1) {
        Some(at) => &name[at + 1..],
        None => name,
    }
}

/// What may stand where a JSON Schema does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alternative {
    /// `true` or `false`.
    Bool,
    /// A list of schemas.
    Schemas,
    /// A list of strings.
    Strings,
}

/// How lists and maps merge (`x-kubernetes-list-type`, `x-kubernetes-map-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    /// Not said; a list is then atomic for apply.
    #[default]
    Unset,
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Items identified by the named keys.
    Map(Box<[Text]>),
}

/// One field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    /// The JSON name.
    pub name: Text,
    /// The JSON type.
    pub ty: Type,
    /// Required in the published OpenAPI.
    pub required: bool,
    /// A protobuf zero means "absent": upstream's Go type is not a pointer and JSON omits its zero.
    pub zero_is_absent: bool,
    /// How the list (or map, or struct) merges under server-side apply.
    pub list: ListKind,
    /// Strategic merge: merge rather than replace.
    pub patch_merge: bool,
    /// Strategic merge: drop what `$retainKeys` does not name.
    pub patch_retain_keys: bool,
    /// Strategic merge: the key that identifies an item, empty if there is none.
    pub patch_merge_key: Text,
    /// JSON of the default, empty if there is none.
    pub default_text: Text,
    /// Documentation, with newlines escaped as in the table; read it through [`Field::doc`].
    pub(crate) doc: Text,
}

impl Field {
    /// The documentation as published.
    pub fn doc(&self) -> String {
        unescape_doc(&self.doc)
    }

    /// What a required scalar is when nobody has set it: the zero of upstream's Go type.
    pub fn zero(&self) -> Option<Value> {
        match &self.ty {
            _ if !self.required => None,
            Type::String => Some("".into()),
            Type::Int32 | Type::Int64 => Some(0.into()),
            Type::Bool => Some(false.into()),
            _ => None,
        }
    }

    /// The default of the field when it is absent.
    pub fn default_value(&self) -> Option<Value> {
        if self.default_text.is_empty() { None } else { serde_json::from_str(&self.default_text).ok() }
    }
}

/// What a protobuf number of a struct leads to.
#[derive(Debug, Clone)]
pub enum ProtoSlot {
    /// The field with this index.
    Field(u16),
    /// A message whose fields appear flat in JSON (Go's inlined structs such as ProbeHandler).
    Inline(Box<[(u32, ProtoSlot)]>),
}

/// One struct type.
#[derive(Debug, Clone)]
pub struct Struct {
    /// The OpenAPI name, such as `io.k8s.api.core.v1.Pod`.
    pub name: Text,
    /// JSON fields sorted by name.
    pub fields: Box<[Field]>,
    /// Protobuf numbers in ascending order.
    pub proto: Box<[(u32, ProtoSlot)]>,
    /// Kinds served with this type.
    pub kinds: Box<[Gvk]>,
    /// Unknown fields are kept as they are (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// The struct is replaced as a whole by apply (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Only names and nesting are this engine's business: values of another type pass, for a later validation that
    /// reports them all. So it is for custom resources.
    pub shape_only: bool,
    /// The OpenAPI schema, when it is not derived from the fields.
    pub published: Option<Box<Value>>,
    pub(crate) doc: Text,
}

impl Struct {
    /// The field of that JSON name. Names are case-sensitive.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.as_ref().cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// The documentation as published.
    pub fn doc(&self) -> String {
        unescape_doc(&self.doc)
    }
}

/// A set of struct types, the kinds among them, and their names. Immutable and shared.
pub struct Schema {
    structs: Vec<Struct>,
    by_name: HashMap<Text, StructId>,
    by_kind: HashMap<Gvk, StructId>,
    kinds: Vec<Gvk>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({} structs, {} kinds)", self.structs.len(), self.kinds.len())
    }
}

impl Schema {
    /// Every built-in kind at API level 1.36. Parsed once, then shared.
    pub fn builtin() -> Arc<Schema> {
        crate::table::builtin()
    }

    /// The type of a kind.
    pub fn kind(self: &Arc<Self>, group: &str, version: &str, kind: &str) -> Option<TypeRef> {
        let gvk = Gvk { group: group.into(), version: version.into(), kind: kind.into() };
        if let Some(id) = self.by_kind.get(&gvk) {
            return Some(self.at(*id));
        }
        // Upstream registers these in every group version, and clients name them by the group they talk to.
        const EVERYWHERE: &[&str] = &[
            "CreateOptions",
            "DeleteOptions",
            "GetOptions",
            "ListOptions",
            "PatchOptions",
            "UpdateOptions",
            "WatchEvent",
        ];
        if EVERYWHERE.contains(&kind) && group != "meta.k8s.io" {
            return self.kind("meta.k8s.io", "v1", kind);
        }
        None
    }

    /// The type of that OpenAPI name, such as `io.k8s.api.core.v1.PodSpec`.
    pub fn by_name(self: &Arc<Self>, openapi_name: &str) -> Option<TypeRef> {
        self.by_name.get(openapi_name).map(|id| self.at(*id))
    }

    /// Every kind, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &Gvk> {
        self.kinds.iter()
    }

    /// Every struct.
    pub fn structs(self: &Arc<Self>) -> impl Iterator<Item = TypeRef> + '_ {
        (0..self.structs.len()).map(|i| self.at(StructId(i as u32)))
    }

    /// A handle to a struct of this schema.
    pub fn at(self: &Arc<Self>, id: StructId) -> TypeRef {
        TypeRef { schema: Arc::clone(self), id }
    }

    /// The struct behind an id of this schema.
    pub fn get(&self, id: StructId) -> &Struct {
        &self.structs[id.0 as usize]
    }
}

/// Collects structs and makes a [`Schema`] of them. Names may be used before they are defined.
#[derive(Default)]
pub struct SchemaBuilder {
    structs: Vec<Option<Struct>>,
    by_name: HashMap<Text, StructId>,
}

impl SchemaBuilder {
    /// The id the struct of this name has or will have.
    pub fn id(&mut self, name: impl Into<Text>) -> StructId {
        let next = StructId(self.structs.len() as u32);
        let id = *self.by_name.entry(name.into()).or_insert(next);
        if id == next {
            self.structs.push(None);
        }
        id
    }

    /// The id of the struct of this name, if it has one.
    pub fn lookup(&self, name: &str) -> Option<StructId> {
        self.by_name.get(name).copied()
    }

    /// Defines a struct, replacing an earlier one of the same name. Fields are sorted here.
    pub fn define(&mut self, mut def: Struct) -> StructId {
        def.proto = proto_after_sort(&mut def.fields, std::mem::take(&mut def.proto));
        let id = self.id(def.name.clone());
        self.structs[id.0 as usize] = Some(def);
        id
    }

    /// The schema, or the name of a struct that is used and not defined.
    pub fn build(self) -> Result<Arc<Schema>, String> {
        let mut names = vec![Text::Borrowed(""); self.structs.len()];
        for (name, id) in &self.by_name {
            names[id.0 as usize] = name.clone();
        }
        let mut structs = Vec::with_capacity(self.structs.len());
        let (mut by_kind, mut kinds) = (HashMap::new(), Vec::new());
        for (index, def) in self.structs.into_iter().enumerate() {
            let def = def.ok_or_else(|| names[index].to_string())?;
            for gvk in def.kinds.iter() {
                by_kind.insert(gvk.clone(), StructId(index as u32));
                kinds.push(gvk.clone());
            }
            structs.push(def);
        }
        kinds.sort();
        kinds.dedup();
        Ok(Arc::new(Schema { structs, by_name: self.by_name, by_kind, kinds }))
    }
}

/// Sorts the fields by name and moves the slots' indices along.
fn proto_after_sort(fields: &mut Box<[Field]>, proto: Box<[(u32, ProtoSlot)]>) -> Box<[(u32, ProtoSlot)]> {
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_by(|a, b| fields[*a].name.cmp(&fields[*b].name));
    let mut moved_to = vec![0u16; fields.len()];
    for (new, old) in order.iter().enumerate() {
        moved_to[*old] = new as u16;
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    fn renumber(slots: Box<[(u32, ProtoSlot)]>, moved_to: &[u16]) -> Box<[(u32, ProtoSlot)]> {
        let mut slots: Vec<_> = slots
            .into_iter()
            .map(|(number, slot)| match slot {
                ProtoSlot::Field(i) => (number, ProtoSlot::Field(moved_to[i as usize])),
                ProtoSlot::Inline(inner) => (number, ProtoSlot::Inline(renumber(inner, moved_to))),
            })
            .collect();
        slots.sort_by_key(|(number, _)| *number);
        slots.into()
    }
    renumber(proto, &moved_to)
}

/// A struct type and the schema it lives in: the one handle for built-in kinds and custom ones.
#[derive(Clone)]
pub struct TypeRef {
    schema: Arc<Schema>,
    id: StructId,
}

impl TypeRef {
    /// The schema the type lives in.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The id within that schema.
    pub fn id(&self) -> StructId {
        self.id
    }

    /// The struct.
    pub fn def(&self) -> &Struct {
        self.schema.get(self.id)
    }

    /// The OpenAPI name.
    pub fn name(&self) -> &str {
        &self.def().name
    }
}

impl PartialEq for TypeRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.schema, &other.schema) && self.id == other.id
    }
}

impl fmt::Debug for TypeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypeRef({})", self.name())
    }
}

/// Docs keep one line each in the table: `\n` for a newline, `\\` for a backslash.
fn unescape_doc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            _ => out.push(c),
        }
    }
    out
}
