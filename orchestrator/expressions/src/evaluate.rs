//! Programs to values. Every step is paid for; depth is bounded by the parser.

mod fold;
pub(crate) mod operators;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Entry, Expr, Kind, Literal};
use crate::budget::Meter;
use crate::check::TYPE_NAMES;
use crate::error::EvaluationError;
use crate::library;
use crate::program::Program;
use crate::value::{Key, Map, Object, Text, Value};
use crate::variables::Variables;

/// What making a list, a map or an object costs, as upstream.
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const OBJECT_COST: u64 = 40;

pub(crate) type Evaluated<'a> = Result<Value<'a>, EvaluationError>;

/// One evaluation under way.
pub(crate) struct Evaluation<'e, 'a> {
    program: &'a Program,
    variables: &'e Variables<'a>,
    meter: &'e mut Meter,
    /// Variables of macros, innermost last.
    scopes: Vec<(&'a str, Value<'a>)>,
}

impl<'e, 'a> Evaluation<'e, 'a> {
    pub fn new(program: &'a Program, variables: &'e Variables<'a>, meter: &'e mut Meter) -> Self {
        Self { program, variables, meter, scopes: Vec::new() }
    }

    pub fn run(mut self) -> Evaluated<'a> {
        self.value(&self.program.root)
    }

    fn value(&mut self, expr: &'a Expr) -> Evaluated<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(of_literal(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, optional } => self.select(operand, field, *optional),
            Kind::Has { operand, field } => self.has(operand, field),
            Kind::Index { operand, index, optional } => self.index(operand, index, *optional),
            Kind::Call { function, target, args } => self.call(function, target.as_deref(), args),
            Kind::All(terms) => self.logical(terms, false),
            Kind::Any(terms) => self.logical(terms, true),
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                match self.value(condition)? {
                    Value::Bool(true) => self.value(yes),
                    Value::Bool(false) => self.value(no),
                    other => Err(library::no_overload("_?_:_", &[other])),
                }
            }
            Kind::List(entries) => self.list(entries),
            Kind::Map(entries) => self.map(entries),
            Kind::Object { name, fields } => self.object(name, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind(bind) => {
                let value = self.value(&bind.value)?;
                self.within(&bind.name, value, |evaluation| evaluation.value(&bind.body))
            }
        }
    }

    /// Evaluates something with one more variable.
    fn within<T>(&mut self, name: &'a str, value: Value<'a>, what: impl FnOnce(&mut Self) -> T) -> T {
        self.scopes.push((name, value));
        let result = what(self);
        self.scopes.pop();
        result
    }

    fn ident(&mut self, name: &'a str) -> Evaluated<'a> {
        self.meter.spend(1)?;
        if let Some((_, value)) = self.scopes.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match self.variables.get(name) {
            Some(value) => Ok(value),
            None if TYPE_NAMES.contains(&name) => Ok(Value::Type(name.into())),
            None => Err(EvaluationError::NoSuchVariable { name: name.to_owned() }),
        }
    }

    fn select(&mut self, operand: &'a Expr, field: &'a str, optional: bool) -> Evaluated<'a> {
        self.meter.spend(1)?;
        if let Kind::Ident(name) = &operand.kind
            && !self.scopes.iter().any(|(known, _)| known == name)
            && let Some(found) = self.beside(name, field)
        {
            return if optional { found.map(Value::some) } else { found };
        }
        let operand = self.value(operand)?;
        select(&operand, field, optional)
    }

    /// What is no field of a value: a variable of the set, or one with a dotted name.
    fn beside(&mut self, name: &str, field: &str) -> Option<Evaluated<'a>> {
        if name == "variables" && self.variables.has_composed() {
            let missing = || Err(EvaluationError::NoSuchKey { key: field.to_owned() });
            return Some(self.variables.composed(field, self.meter).unwrap_or_else(missing));
        }
        if name == "authorizer" { self.variables.get(&format!("{name}.{field}")).map(Ok) } else { None }
    }

    fn has(&mut self, operand: &'a Expr, field: &'a str) -> Evaluated<'a> {
        if let Kind::Ident(name) = &operand.kind
            && let Some(found) = self.beside(name, field)
        {
            return Ok(Value::Bool(found.is_ok()));
        }
        let value = self.value(operand)?;
        Ok(Value::Bool(match select(&value, field, true)? {
            Value::Optional(found) => found.is_some(),
            _ => false,
        }))
    }

    fn index(&mut self, operand: &'a Expr, index: &'a Expr, optional: bool) -> Evaluated<'a> {
        self.meter.spend(1)?;
        let (operand, index) = (self.value(operand)?, self.value(index)?);
        match &operand {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => at(inner, &index, true),
            other => at(other, &index, optional),
        }
    }

    fn call(&mut self, function: &'a str, target: Option<&'a Expr>, args: &'a [Expr]) -> Evaluated<'a> {
        self.meter.spend(1)?;
        // The alternative is evaluated only where it is needed.
        if let (Some(target), [alternative], "or" | "orValue") = (target, args, function) {
            return match (self.value(target)?, function) {
                (Value::Optional(Some(inner)), "orValue") => Ok((*inner).clone()),
                (some @ Value::Optional(Some(_)), _) => Ok(some),
                (Value::Optional(None), _) => self.value(alternative),
                (other, _) => Err(library::no_overload(function, &[other])),
            };
        }
        let mut values = Vec::with_capacity(args.len() + usize::from(target.is_some()));
        for arg in target.into_iter().chain(args) {
            values.push(self.value(arg)?);
        }
        match operators::call(function, &values, self.meter) {
            Some(result) => result,
            None => library::call(function, values, &self.program.patterns, self.meter),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true): a term that decides outweighs errors of others.
    fn logical(&mut self, terms: &'a [Expr], decides: bool) -> Evaluated<'a> {
        let mut failed = None;
        for term in terms {
            self.meter.spend(1)?;
            match self.value(term) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(other) => {
                    let name = if decides { "_||_" } else { "_&&_" };
                    failed.get_or_insert(library::no_overload(name, &[other]));
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    /// The value of a part of a literal; `None` when it is optional and not there.
    fn part(&mut self, expr: &'a Expr, optional: bool) -> Result<Option<Value<'a>>, EvaluationError> {
        match (self.value(expr)?, optional) {
            (Value::Optional(inner), true) => Ok(inner.map(|value| (*value).clone())),
            (value, false) => Ok(Some(value)),
            (other, true) => Err(library::no_overload("optional entry", &[other])),
        }
    }

    fn list(&mut self, entries: &'a [Entry<()>]) -> Evaluated<'a> {
        self.meter.spend(LIST_COST)?;
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            items.extend(self.part(&entry.value, entry.optional)?);
        }
        Ok(Value::list(items))
    }

    fn map(&mut self, entries: &'a [Entry<Expr>]) -> Evaluated<'a> {
        self.meter.spend(MAP_COST)?;
        let mut made = BTreeMap::new();
        for entry in entries {
            let key = self.value(&entry.key)?;
            let Some(key) = Key::of(&key) else {
                return Err(EvaluationError::function(format!("unsupported key type: {}", key.type_name())));
            };
            if let Some(value) = self.part(&entry.value, entry.optional)?
                && made.insert(key.clone(), value).is_some()
            {
                return Err(EvaluationError::function(format!("Failed with repeated key {key}")));
            }
        }
        Ok(Value::Map(Map::Made(Arc::new(made))))
    }

    fn object(&mut self, name: &'a str, fields: &'a [Entry<String>]) -> Evaluated<'a> {
        self.meter.spend(OBJECT_COST)?;
        let mut made = Vec::with_capacity(fields.len());
        for field in fields {
            if let Some(value) = self.part(&field.value, field.optional)? {
                made.push((field.key.as_str(), value));
            }
        }
        Ok(Value::Object(Arc::new(Object { name, fields: made })))
    }
}

fn of_literal(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

/// A field of a value. Optional ones, and fields of optional values, are optional values.
fn select<'a>(operand: &Value<'a>, field: &str, optional: bool) -> Evaluated<'a> {
    let found = match operand {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return select(inner, field, true),
        Value::Map(map) => map.get(&Key::String(field.into())),
        Value::Object(object) => {
            object.fields.iter().find(|(name, _)| *name == field).map(|(_, v)| v.clone())
        }
        other => return Err(library::no_overload(&format!("select {field}"), std::slice::from_ref(other))),
    };
    match (found, optional) {
        (Some(value), true) => Ok(Value::some(value)),
        (None, true) => Ok(Value::Optional(None)),
        (Some(value), false) => Ok(value),
        (None, false) => Err(EvaluationError::NoSuchKey { key: field.to_owned() }),
    }
}

fn at<'a>(operand: &Value<'a>, index: &Value<'a>, optional: bool) -> Evaluated<'a> {
    let (found, error) = match (operand, index) {
        (Value::List(list), index) => {
            let Some(Key::Int(position)) = Key::of(index) else {
                return Err(library::no_overload("_[_]", &[operand.clone(), index.clone()]));
            };
            let found = usize::try_from(position).ok().and_then(|position| list.get(position));
            let shown = i64::try_from(position).unwrap_or(i64::MAX);
            (found, EvaluationError::OutOfBounds { index: shown })
        }
        (Value::Map(map), index) => {
            let Some(key) = Key::of(index) else {
                return Err(library::no_overload("_[_]", &[operand.clone(), index.clone()]));
            };
            (map.get(&key), EvaluationError::NoSuchKey { key: key.to_string() })
        }
        _ => return Err(library::no_overload("_[_]", &[operand.clone(), index.clone()])),
    };
    match (found, optional) {
        (Some(value), true) => Ok(Value::some(value)),
        (None, true) => Ok(Value::Optional(None)),
        (found, false) => found.ok_or(error),
    }
}
