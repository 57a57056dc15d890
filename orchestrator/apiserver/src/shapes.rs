//! Types of the schema as types of expressions.

use std::sync::Arc;

use penstock_expressions::{Field, Shape, Type, unescaped};
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
}
