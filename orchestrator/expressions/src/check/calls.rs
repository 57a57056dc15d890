//! Which overload of a function a call means.

use std::sync::Arc;

use super::Checker;
use crate::ast::{Expr, Kind, Literal};
use crate::library::{regexes, times};
use crate::signatures::{self, Overload};
use crate::types::Type;

/// The types that stand for `A` and `B`.
type Bindings = [Option<Type>; 2];

impl<'a> Checker<'a> {
    pub(super) fn call(
        &mut self,
        function: &str,
        target: Option<&'a Expr>,
        args: &'a [Expr],
        at: u32,
    ) -> Type {
        // Comparisons take what `<` takes.
        let listed = if matches!(function, "_<=_" | "_>_" | "_>=_") { "_<_" } else { function };
        let overloads = signatures::overloads(listed);
        let given: Vec<Type> = match (function, target, args) {
            // What is printed side by side need not be of one type.
            ("format", Some(target), [Expr { kind: Kind::List(entries), .. }]) => {
                for entry in entries {
                    self.check(&entry.value);
                }
                vec![self.check(target), Type::list(Type::Dyn)]
            }
            _ => target.into_iter().chain(args).map(|arg| self.check(arg)).collect(),
        };
        if overloads.is_empty() {
            return self.report(at, format!("undeclared reference to '{function}' (in container '')"));
        }
        self.literals(function, target, args);
        let matching: Vec<Type> = overloads
            .iter()
            .filter(|overload| overload.member == target.is_some())
            .filter_map(|overload| result_of(overload, &given))
            .collect();
        match matching.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => first.clone(),
            Some(_) => Type::Dyn,
            None => {
                let listed: Vec<String> = given.iter().map(Type::to_string).collect();
                let shown = match (target, listed.split_first()) {
                    (Some(_), Some((target, args))) => format!("{target}.({})", args.join(", ")),
                    _ => format!("({})", listed.join(", ")),
                };
                self.report(at, format!("found no matching overload for '{function}' applied to '{shown}'"))
            }
        }
    }

    /// Literals that a function could not take are wrong already.
    fn literals(&mut self, function: &str, target: Option<&Expr>, args: &[Expr]) {
        let text = |expr: Option<&Expr>| match expr.map(|expr| &expr.kind) {
            Some(Kind::Literal(Literal::String(text))) => Some(text.clone()),
            _ => None,
        };
        let at = |expr: Option<&Expr>| expr.map_or(0, |expr| expr.at);
        match (function, target) {
            ("matches" | "find" | "findAll", _) => {
                let pattern = args.get(usize::from(target.is_none()));
                if let Some(source) = text(pattern) {
                    match regexes::build(&source) {
                        Ok(built) => {
                            self.patterns.insert(source, built);
                        }
                        Err(error) => {
                            self.report(at(pattern), format!("invalid matches argument: {error}"));
                        }
                    }
                }
            }
            ("duration", None) if text(args.first()).is_some_and(|t| times::parse_duration(&t).is_none()) => {
                self.report(at(args.first()), "invalid duration argument".into());
            }
            ("timestamp", None)
                if text(args.first()).is_some_and(|t| times::parse_timestamp(&t).is_none()) =>
            {
                self.report(at(args.first()), "invalid timestamp argument".into());
            }
            _ => {}
        }
    }
}

fn result_of(overload: &Overload, given: &[Type]) -> Option<Type> {
    if overload.parameters.len() != given.len() {
        return None;
    }
    let mut bindings = Bindings::default();
    let fits = overload.parameters.iter().zip(given).all(|(wanted, is)| fits(wanted, is, &mut bindings));
    fits.then(|| bound(&overload.result, &bindings))
}

fn fits(wanted: &Type, is: &Type, bindings: &mut Bindings) -> bool {
    match (wanted, is) {
        (Type::Parameter(letter), is) => {
            let slot = &mut bindings[usize::from(*letter == b'B')];
            match slot {
                None => {
                    *slot = Some(is.clone());
                    true
                }
                Some(known) => {
                    let admitted = known.admits(is) || is.admits(known);
                    *slot = Some(general(known, is));
                    admitted
                }
            }
        }
        (_, Type::Dyn) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => fits(a, b, bindings),
        (Type::Map(a, b), Type::Map(c, d)) => fits(a, c, bindings) && fits(b, d, bindings),
        (Type::Null, _) => *is == Type::Null,
        (wanted, is) => wanted.is_dyn() || wanted == is,
    }
}

/// The narrowest type that both are of.
pub(super) fn general(a: &Type, b: &Type) -> Type {
    match (a, b) {
        (Type::List(a), Type::List(b)) => Type::list(general(a, b)),
        (Type::Map(a, b), Type::Map(c, d)) => Type::map(general(a, c), general(b, d)),
        (Type::Optional(a), Type::Optional(b)) => Type::Optional(Arc::new(general(a, b))),
        (Type::Null, other) | (other, Type::Null) => other.clone(),
        (a, b) if a == b => a.clone(),
        _ => Type::Dyn,
    }
}

fn bound(ty: &Type, bindings: &Bindings) -> Type {
    match ty {
        Type::Parameter(letter) => bindings[usize::from(*letter == b'B')].clone().unwrap_or_default(),
        Type::List(item) => Type::list(bound(item, bindings)),
        Type::Map(key, value) => Type::map(bound(key, bindings), bound(value, bindings)),
        Type::Optional(inner) => Type::optional(bound(inner, bindings)),
        other => other.clone(),
    }
}
