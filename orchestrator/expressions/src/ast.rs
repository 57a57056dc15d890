//! What the parser makes of a source: expressions with the place each begins at. Macros stay what they are, so that
//! checks, costs and errors can speak of them.

/// An expression and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expr {
    pub kind: Kind,
    /// Byte offset in the source.
    pub at: u32,
    /// How many expressions are nested in the deepest branch, this one included.
    pub depth: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    /// `a.b`, or `a.?b`.
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(a.b)`
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// `a[b]`, or `a[?b]`.
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// Functions and operators (`_+_`), those of namespaces under their whole name (`sets.contains`).
    Call {
        function: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Conditional(Box<[Expr; 3]>),
    List(Vec<Entry<()>>),
    Map(Vec<Entry<Expr>>),
    Object {
        name: String,
        fields: Vec<Entry<String>>,
    },
    Fold(Box<Fold>),
    /// `cel.bind(name, value, body)`
    Bind(Box<Bind>),
}

/// A part of a literal; an optional one is left out when there is no value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry<K> {
    pub key: K,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bind {
    pub name: String,
    pub value: Expr,
    pub body: Expr,
}

/// A macro over the items of a list or the keys of a map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fold {
    pub what: What,
    pub range: Expr,
    pub first: String,
    /// The value beside its index or key.
    pub second: Option<String>,
    pub filter: Option<Expr>,
    pub body: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    All,
    Exists,
    ExistsOne,
    /// `map` and `transformList`
    List,
    Filter,
    /// `transformMap`
    Map,
    /// `transformMapEntry`
    Entries,
    /// `optMap`
    Optional,
    /// `optFlatMap`
    OptionalFlat,
}

impl Expr {
    pub fn new(kind: Kind, at: u32) -> Self {
        let depth = 1 + kind.children().map(|child| child.depth).max().unwrap_or(0);
        Self { kind, at, depth }
    }
}

impl Kind {
    /// The expressions directly below.
    pub fn children(&self) -> Box<dyn Iterator<Item = &Expr> + '_> {
        match self {
            Kind::Literal(_) | Kind::Ident(_) => Box::new(std::iter::empty()),
            Kind::Select { operand, .. } | Kind::Has { operand, .. } => Box::new(std::iter::once(&**operand)),
            Kind::Index { operand, index, .. } => Box::new([&**operand, &**index].into_iter()),
            Kind::Call { target, args, .. } => Box::new(target.as_deref().into_iter().chain(args)),
            Kind::All(terms) | Kind::Any(terms) => Box::new(terms.iter()),
            Kind::Conditional(parts) => Box::new(parts.iter()),
            Kind::List(entries) => Box::new(entries.iter().map(|entry| &entry.value)),
            Kind::Map(entries) => Box::new(entries.iter().flat_map(|entry| [&entry.key, &entry.value])),
            Kind::Object { fields, .. } => Box::new(fields.iter().map(|field| &field.value)),
            Kind::Fold(fold) => Box::new([&fold.range].into_iter().chain(&fold.filter).chain([&fold.body])),
            Kind::Bind(bind) => Box::new([&bind.value, &bind.body].into_iter()),
        }
    }
}
