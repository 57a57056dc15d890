//! Types of expressions before they are evaluated: what refers to nothing, and what cannot fit.

mod calls;

use std::collections::HashMap;

use regex::Regex;

use crate::ast::{Entry, Expr, Fold, Kind, Literal, What};
use crate::environment::Environment;
use crate::types::{Type, made_type};

pub(crate) struct Checked {
    pub ty: Type,
    /// Offsets and messages.
    pub wrong: Vec<(u32, String)>,
    pub patterns: HashMap<String, Regex>,
}

pub(crate) fn check(root: &Expr, environment: &Environment) -> Checked {
    let mut checker =
        Checker { environment, scopes: Vec::new(), wrong: Vec::new(), patterns: HashMap::new() };
    let ty = checker.check(root);
    Checked { ty, wrong: checker.wrong, patterns: checker.patterns }
}

struct Checker<'a> {
    environment: &'a Environment,
    /// Variables of macros, innermost last.
    scopes: Vec<(&'a str, Type)>,
    wrong: Vec<(u32, String)>,
    patterns: HashMap<String, Regex>,
}

/// Names that are types and stand for themselves.
pub(crate) const TYPE_NAMES: &[&str] =
    &["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];

impl<'a> Checker<'a> {
    fn report(&mut self, at: u32, message: String) -> Type {
        self.wrong.push((at, message));
        Type::Dyn
    }

    fn check(&mut self, expr: &'a Expr) -> Type {
        match &expr.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => self.ident(name, expr.at),
            Kind::Select { operand, field, optional } => self.select(operand, field, *optional, expr.at),
            Kind::Has { operand, field } => {
                self.select(operand, field, false, expr.at);
                Type::Bool
            }
            Kind::Index { operand, index, optional } => self.index(operand, index, *optional, expr.at),
            Kind::Call { function, target, args } => self.call(function, target.as_deref(), args, expr.at),
            Kind::All(terms) | Kind::Any(terms) => {
                for term in terms {
                    self.condition(term);
                }
                Type::Bool
            }
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                self.condition(condition);
                let (yes, no) = (self.check(yes), self.check(no));
                self.joined(yes, no, expr.at, "_?_:_")
            }
            Kind::List(entries) => self.list(entries),
            Kind::Map(entries) => self.map(entries),
            Kind::Object { name, fields } => {
                if !self.environment.makes(name) {
                    self.report(expr.at, format!("undeclared reference to '{name}' (in container '')"));
                }
                for field in fields {
                    self.check(&field.value);
                    let known = ["op", "path", "from", "value"].contains(&field.key.as_str());
                    if name == crate::JSON_PATCH && !known {
                        self.report(field.value.at, format!("undefined field '{}'", field.key));
                    }
                }
                made_type(name)
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind(bind) => {
                let value = self.check(&bind.value);
                self.scopes.push((&bind.name, value));
                let ty = self.check(&bind.body);
                self.scopes.pop();
                ty
            }
        }
    }

    fn ident(&mut self, name: &str, at: u32) -> Type {
        if let Some((_, ty)) = self.scopes.iter().rev().find(|(known, _)| *known == name) {
            return ty.clone();
        }
        if let Some(ty) = self.environment.type_of(name) {
            return ty.clone();
        }
        if TYPE_NAMES.contains(&name) {
            return Type::Type;
        }
        if name == "variables" && self.environment.has_composed() {
            return Type::Dyn;
        }
        self.report(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select(&mut self, operand: &'a Expr, field: &str, optional: bool, at: u32) -> Type {
        if let Kind::Ident(name) = &operand.kind
            && name == "variables"
            && self.environment.type_of(name).is_none()
            && self.environment.has_composed()
        {
            return match self.environment.composed_type(field) {
                Some(ty) => ty.clone(),
                None => self.report(at, format!("undefined field '{field}'")),
            };
        }
        // A variable may have a dotted name: `authorizer.requestResource`.
        if let Kind::Ident(name) = &operand.kind
            && let Some(ty) = self.environment.type_of(&format!("{name}.{field}"))
        {
            return ty.clone();
        }
        let operand = self.check(operand);
        let (inside, wrapped) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), optional),
        };
        let ty = match &inside {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Object(shape) => match shape.field(field) {
                Some(found) => found.ty,
                None => self.report(at, format!("undefined field '{field}'")),
            },
            other => self.report(at, format!("type '{other}' does not support field selection")),
        };
        if wrapped { Type::optional(ty) } else { ty }
    }

    fn index(&mut self, operand: &'a Expr, index: &'a Expr, optional: bool, at: u32) -> Type {
        let (operand, index) = (self.check(operand), self.check(index));
        let (inside, wrapped) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), optional),
        };
        let found = match &inside {
            Type::Dyn => Some(Type::Dyn),
            Type::List(item) if Type::Int.admits(&index) => Some((**item).clone()),
            Type::Map(key, value) if key.admits(&index) => Some((**value).clone()),
            _ => None,
        };
        let ty = match found {
            Some(ty) => ty,
            None => self.report(
                at,
                format!("found no matching overload for '_[_]' applied to '({operand}, {index})'"),
            ),
        };
        if wrapped { Type::optional(ty) } else { ty }
    }

    fn condition(&mut self, expr: &'a Expr) {
        let ty = self.check(expr);
        if !Type::Bool.admits(&ty) {
            self.report(expr.at, format!("expected type 'bool' but found '{ty}'"));
        }
    }

    /// The type of two values one of which it will be.
    fn joined(&mut self, a: Type, b: Type, at: u32, function: &str) -> Type {
        if a.is_dyn() || b.is_dyn() {
            return Type::Dyn;
        }
        match (a.admits(&b), b.admits(&a)) {
            (true, true) if matches!(a, Type::List(_) | Type::Map(..)) => calls::general(&a, &b),
            (true, _) => a,
            (_, true) => b,
            _ => self.report(
                at,
                format!("found no matching overload for '{function}' applied to '(bool, {a}, {b})'"),
            ),
        }
    }

    fn list(&mut self, entries: &'a [Entry<()>]) -> Type {
        let mut item: Option<Type> = None;
        for entry in entries {
            let ty = self.check(&entry.value);
            let ty = self.unwrapped(ty, entry.optional, entry.value.at);
            item = Some(self.same(item, ty, entry.value.at));
        }
        Type::list(item.unwrap_or_default())
    }

    fn map(&mut self, entries: &'a [Entry<Expr>]) -> Type {
        let (mut key, mut value): (Option<Type>, Option<Type>) = (None, None);
        for entry in entries {
            let ty = self.check(&entry.key);
            key = Some(self.same(key, ty, entry.key.at));
            let ty = self.check(&entry.value);
            let ty = self.unwrapped(ty, entry.optional, entry.value.at);
            value = Some(self.same(value, ty, entry.value.at));
        }
        Type::map(key.unwrap_or_default(), value.unwrap_or_default())
    }

    fn unwrapped(&mut self, ty: Type, optional: bool, at: u32) -> Type {
        match ty {
            Type::Optional(inner) if optional => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other if optional => {
                self.report(at, format!("expected type 'optional_type(dyn)' but found '{other}'"))
            }
            other => other,
        }
    }

    /// The type of the items of a literal, which are of one type.
    fn same(&mut self, so_far: Option<Type>, ty: Type, at: u32) -> Type {
        match so_far {
            None => ty,
            Some(first) if first.admits(&ty) => calls::general(&first, &ty),
            Some(first) if ty.admits(&first) => ty,
            Some(first) => {
                self.report(at, format!("expected type '{first}' but found '{ty}'"));
                first
            }
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Type {
        let range = self.check(&fold.range);
        let optional = matches!(fold.what, What::Optional | What::OptionalFlat);
        let (first, second) = match (&range, optional) {
            (Type::Dyn, _) => (Type::Dyn, Type::Dyn),
            (Type::Optional(inner), true) => ((**inner).clone(), Type::Dyn),
            (Type::List(item), false) if fold.second.is_some() => (Type::Int, (**item).clone()),
            (Type::List(item), false) => ((**item).clone(), Type::Dyn),
            (Type::Map(key, value), false) => ((**key).clone(), (**value).clone()),
            (other, _) => {
                let other = other.clone();
                self.report(
                    fold.range.at,
                    format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"),
                );
                (Type::Dyn, Type::Dyn)
            }
        };
        let scopes = self.scopes.len();
        self.scopes.push((&fold.first, first.clone()));
        if let Some(name) = &fold.second {
            self.scopes.push((name, second));
        }
        if let Some(filter) = &fold.filter {
            self.condition(filter);
        }
        let body = match fold.what {
            What::All | What::Exists | What::ExistsOne | What::Filter => {
                self.condition(&fold.body);
                Type::Bool
            }
            _ => self.check(&fold.body),
        };
        self.scopes.truncate(scopes);
        let key = match &range {
            Type::Map(key, _) => (**key).clone(),
            Type::List(_) => Type::Int,
            _ => Type::Dyn,
        };
        match fold.what {
            What::All | What::Exists | What::ExistsOne => Type::Bool,
            What::Filter => match range {
                Type::List(_) | Type::Dyn => range,
                _ => Type::list(first),
            },
            What::List => Type::list(body),
            What::Map => Type::map(key, body),
            What::Entries => match body {
                Type::Map(..) => body,
                _ => Type::Dyn,
            },
            What::Optional => Type::optional(body),
            What::OptionalFlat => body,
        }
    }
}
