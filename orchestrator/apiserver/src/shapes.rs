//! Types of the schema as types of expressions.

use std::sync::Arc;

use penstock_expressions::{Field, Shape, Type};
use penstock_schema::TypeRef;

/// The type of objects of a kind, built in or custom.
pub(crate) fn of(ty: &TypeRef) -> Type {
    if ty.def().fields.is_empty() || ty.def().preserve_unknown {
        return Type::Dyn;
    }
    Type::Object(Arc::new(SchemaShape(ty.clone())))
}

struct SchemaShape(TypeRef);

impl Shape for SchemaShape {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn field(&self, name: &str) -> Option<Field> {
        let field = self.0.def().field(name).or_else(|| self.0.def().field(&unescaped(name)))?;
        Some(Field { key: field.name.to_string(), ty: converted(&self.0, &field.ty) })
    }
}

fn converted(within: &TypeRef, ty: &penstock_schema::Type) -> Type {
    use penstock_schema::Type as Schema;
    match ty {
        Schema::Bool => Type::Bool,
        Schema::Int32 | Schema::Int64 => Type::Int,
        Schema::Double => Type::Double,
        Schema::String => Type::String,
        Schema::Bytes => Type::Bytes,
        Schema::Time | Schema::MicroTime => Type::Timestamp,
        Schema::Duration => Type::Duration,
        Schema::Quantity | Schema::IntOrString | Schema::Raw | Schema::SchemaOr(..) => Type::Dyn,
        Schema::List(item) | Schema::WrappedList(item) => Type::list(converted(within, item)),
        Schema::Map(value) => Type::map(Type::String, converted(within, value)),
        Schema::Struct(id) => of(&within.schema().at(*id)),
        Schema::Nullable(inner) => converted(within, inner),
    }
}

/// How names that are no names of expressions are written in them, longest first.
const ESCAPES: &[(&str, &str)] =
    &[("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];

/// Words of the language, which are written between underscores.
const WORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// The JSON name of what an expression calls `name`.
pub(crate) fn unescaped(name: &str) -> String {
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| WORDS.contains(word)) {
        return word.to_owned();
    }
    let (mut out, mut rest) = (String::new(), name);
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape)) {
            Some((escape, text)) => {
                out.push_str(text);
                rest = &rest[escape.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use penstock_schema::Schema;

    use super::*;

    #[test]
    fn fields_of_built_in_kinds_have_types() {
        let deployment = of(&Schema::builtin().kind("apps", "v1", "Deployment").unwrap());
        let environment = penstock_expressions::Environment::default().variable("object", deployment);
        let compile = |source: &str| penstock_expressions::compile(source, &environment);
        assert!(compile("object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'").is_ok());
        assert!(compile("object.metadata.__namespace__ == object.metadata.namespace").is_ok());
        assert!(compile("object.spec.template.spec.containers.all(c, c.image.startsWith('x'))").is_ok());
        let wrong = compile("object.spec.replicas > '1'").unwrap_err();
        assert_eq!(
            wrong.issues[0].message,
            "found no matching overload for '_>_' applied to '(int, string)'"
        );
        assert!(compile("object.spec.replica > 1").is_err());
    }

    #[test]
    fn names_are_escaped_as_upstream() {
        for (name, json) in [
            ("foo__dash__bar", "foo-bar"),
            ("a__dot__b__slash__c", "a.b/c"),
            ("__namespace__", "namespace"),
            ("redact__underscores__d", "redact__d"),
            ("plain_name", "plain_name"),
        ] {
            assert_eq!(unescaped(name), json);
        }
    }
}
