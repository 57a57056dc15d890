//! What an expression can cost at most, given how large values can be: said before it is ever evaluated.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Expr, Fold, Kind, Literal, What};
use crate::names::unescaped;

/// The largest request, which bounds what no schema bounds.
pub const REQUEST_BYTES_MAX: u64 = 3 << 20;

/// How many lists and maps inside each other are measured.
const NESTING_MAX: usize = 128;

/// How large a value can be.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Characters, items or entries; 1 of anything else.
    pub length_max: u64,
    /// Of items, or of the values of a map.
    pub inner: Option<Arc<Measure>>,
    /// By their names in JSON.
    pub fields: Arc<BTreeMap<String, Measure>>,
}

// === impl Measure ===

impl Default for Measure {
    /// Of what nothing is known.
    fn default() -> Self {
        Self::of_length(REQUEST_BYTES_MAX)
    }
}

impl Measure {
    /// Of something without parts.
    pub fn of_length(length_max: u64) -> Self {
        Self { length_max, inner: None, fields: Arc::default() }
    }

    /// Of a list or a map.
    pub fn of_many(length_max: u64, inner: Measure) -> Self {
        // What is nested deeper than any schema is as large as a request.
        let inner = if inner.deeper_than(NESTING_MAX) { Measure::default() } else { inner };
        Self { length_max, inner: Some(Arc::new(inner)), fields: Arc::default() }
    }

    fn deeper_than(&self, levels: usize) -> bool {
        let inner = self.inner.as_deref();
        inner.is_some_and(|inner| levels == 0 || inner.deeper_than(levels - 1))
    }

    fn inside(&self) -> Measure {
        self.inner.as_ref().map_or_else(Measure::default, |inner| (**inner).clone())
    }

    fn field(&self, name: &str) -> Measure {
        let found = self.fields.get(name).or_else(|| self.fields.get(&unescaped(name)));
        found.cloned().unwrap_or_else(|| self.inside())
    }

    /// What going through all of it costs, to compare it.
    fn weight(&self) -> u64 {
        match &self.inner {
            Some(inner) => self.length_max.saturating_mul(inner.weight().saturating_add(1)),
            None if self.fields.is_empty() => self.length_max.div_ceil(10),
            None => self
                .fields
                .values()
                .fold(1, |sum: u64, field| sum.saturating_add(field.weight()).saturating_add(1)),
        }
    }

    fn larger(self, other: Measure) -> Measure {
        let length_max = self.length_max.max(other.length_max);
        let inner = match (self.inner, other.inner) {
            (Some(a), Some(b)) if a.weight() < b.weight() => Some(b),
            (a, b) => a.or(b),
        };
        let fields = if self.fields.is_empty() { other.fields } else { self.fields };
        Measure { length_max, inner, fields }
    }
}

/// The most an expression can cost.
pub(crate) fn cost_max(root: &Expr, variables: &[(&str, Measure)]) -> u64 {
    let scopes = variables.iter().map(|(name, measure)| ((*name).to_owned(), measure.clone())).collect();
    Estimate { scopes }.of(root).0
}

struct Estimate {
    scopes: Vec<(String, Measure)>,
}

impl Estimate {
    fn of(&mut self, expr: &Expr) -> (u64, Measure) {
        match &expr.kind {
            Kind::Literal(Literal::String(text)) => (0, Measure::of_length(text.chars().count() as u64)),
            Kind::Literal(Literal::Bytes(bytes)) => (0, Measure::of_length(bytes.len() as u64)),
            Kind::Literal(_) => (0, Measure::of_length(1)),
            Kind::Ident(name) => {
                let known = self.scopes.iter().rev().find(|(known, _)| known == name);
                (1, known.map(|(_, measure)| measure.clone()).unwrap_or_default())
            }
            Kind::Select { operand, field, .. } => {
                let (cost, measure) = self.of(operand);
                (cost.saturating_add(1), measure.field(field))
            }
            Kind::Has { operand, .. } => (self.of(operand).0, Measure::of_length(1)),
            Kind::Index { operand, index, .. } => {
                let ((cost, measure), (more, _)) = (self.of(operand), self.of(index));
                (cost.saturating_add(more).saturating_add(1), measure.inside())
            }
            Kind::Call { function, target, args } => self.call(function, target.as_deref(), args),
            Kind::All(terms) | Kind::Any(terms) => {
                let cost = terms
                    .iter()
                    .fold(0, |sum: u64, term| sum.saturating_add(self.of(term).0).saturating_add(1));
                (cost, Measure::of_length(1))
            }
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                let (first, (a, yes), (b, no)) = (self.of(condition).0, self.of(yes), self.of(no));
                (first.saturating_add(a.max(b)), yes.larger(no))
            }
            Kind::List(entries) => {
                let mut cost = 10;
                let mut inner = Measure::of_length(0);
                for entry in entries {
                    let (more, measure) = self.of(&entry.value);
                    cost = more.saturating_add(cost);
                    inner = inner.larger(measure);
                }
                (cost, Measure::of_many(entries.len() as u64, inner))
            }
            Kind::Map(_) | Kind::Object { .. } => {
                let parts: Vec<_> = expr.kind.children().map(|child| self.of(child)).collect();
                let cost = parts.iter().fold(40, |sum: u64, (cost, _)| sum.saturating_add(*cost));
                let inner = parts.into_iter().fold(Measure::of_length(0), |m, (_, next)| m.larger(next));
                (cost, Measure::of_many(expr.kind.children().count() as u64, inner))
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind(bind) => {
                let (cost, measure) = self.of(&bind.value);
                self.scopes.push((bind.name.clone(), measure));
                let (more, result) = self.of(&bind.body);
                self.scopes.pop();
                (cost.saturating_add(more), result)
            }
        }
    }

    fn fold(&mut self, fold: &Fold) -> (u64, Measure) {
        let (cost, range) = self.of(&fold.range);
        let optional = matches!(fold.what, What::Optional | What::OptionalFlat);
        let turns = if optional { 1 } else { range.length_max };
        let item = if optional { range.clone() } else { range.inside() };
        let scopes = self.scopes.len();
        // With one variable over a map it is the key; a value is the larger guess only where there are keys.
        self.scopes.push((fold.first.clone(), item.clone()));
        self.scopes.extend(fold.second.clone().map(|name| (name, item.clone())));
        let filter = fold.filter.as_ref().map_or(0, |filter| self.of(filter).0);
        let (body, result) = self.of(&fold.body);
        self.scopes.truncate(scopes);
        let turn = body.saturating_add(filter).saturating_add(3);
        let measure = match fold.what {
            What::All | What::Exists | What::ExistsOne => Measure::of_length(1),
            What::Filter => range,
            What::Optional | What::OptionalFlat => result,
            What::List | What::Map | What::Entries => Measure::of_many(turns, result),
        };
        (cost.saturating_add(turns.saturating_mul(turn)), measure)
    }

    fn call(&mut self, function: &str, target: Option<&Expr>, args: &[Expr]) -> (u64, Measure) {
        let parts: Vec<(u64, Measure)> = target.into_iter().chain(args).map(|arg| self.of(arg)).collect();
        let paid = parts.iter().fold(1, |sum: u64, (cost, _)| sum.saturating_add(*cost));
        let length = |at: usize| parts.get(at).map_or(1, |(_, measure)| measure.length_max);
        let sum = parts.iter().fold(0, |sum: u64, (_, measure)| sum.saturating_add(measure.length_max));
        let first = parts.first().map(|(_, measure)| measure.clone()).unwrap_or_default();
        let scalar = Measure::of_length(1);
        let (cost, result) = match function {
            "_==_" | "_!=_" => {
                let least = parts.iter().map(|(_, measure)| measure.weight()).min().unwrap_or(0);
                (least, scalar)
            }
            "_<_" | "_<=_" | "_>_" | "_>=_" => (length(0).min(length(1)).div_ceil(10), scalar),
            "_+_" => (sum.div_ceil(10), Measure { length_max: sum, ..first }),
            "@in" => match &parts[..] {
                [(_, item), (_, list)] => (
                    list.length_max
                        .saturating_mul(item.weight().min(list.inside().weight()).saturating_add(1)),
                    scalar,
                ),
                _ => (0, scalar),
            },
            "!_" | "-_" | "_-_" | "_*_" | "_/_" | "_%_" | "size" | "type" => (0, scalar),
            "matches" | "find" => {
                let pattern = length(1).div_ceil(4);
                (length(0).div_ceil(10).saturating_mul(pattern), Measure::of_length(length(0)))
            }
            "findAll" => {
                let pattern = length(1).div_ceil(4);
                (length(0).div_ceil(10).saturating_mul(pattern), Measure::of_many(length(0), first))
            }
            "split" => (length(0).div_ceil(10), Measure::of_many(length(0).saturating_add(1), first)),
            "replace" => {
                let grown = length(0).saturating_mul(length(2).max(1));
                (grown.div_ceil(10), Measure::of_length(grown))
            }
            "join" => {
                let grown = length(0).saturating_mul(first.inside().length_max.saturating_add(length(1)));
                (grown.div_ceil(10), Measure::of_length(grown))
            }
            "sets.contains" | "sets.equivalent" | "sets.intersects" => (
                length(0).saturating_mul(length(1)).saturating_mul(first.inside().weight().saturating_add(1)),
                scalar,
            ),
            "distinct" => (length(0).saturating_mul(length(0)), first),
            "contains" | "startsWith" | "endsWith" => (length(0).div_ceil(10), scalar),
            _ => (sum.div_ceil(10).max(first.inner.as_ref().map_or(0, |_| first.weight())), first),
        };
        (paid.saturating_add(cost), result)
    }
}

/// Whether an expression refers to a variable by this name.
pub(crate) fn refers_to(expr: &Expr, name: &str) -> bool {
    match &expr.kind {
        Kind::Ident(known) => known == name,
        Kind::Fold(fold) if fold.first == name || fold.second.as_deref() == Some(name) => {
            refers_to(&fold.range, name)
        }
        other => other.children().any(|child| refers_to(child, name)),
    }
}
