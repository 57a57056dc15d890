//! Which calls are macros, and what they stand for.

use super::Wrong;
use crate::ast::{Bind, Expr, Fold, Kind, What};

pub(super) enum Expanded {
    Macro(Kind),
    /// No macro: what was given.
    Call(Option<Expr>, Vec<Expr>),
}

/// Macros over ranges: name, variables, whether a filter may stand before the last argument.
const FOLDS: &[(&str, usize, bool, What)] = &[
    ("all", 1, false, What::All),
    ("exists", 1, false, What::Exists),
    ("exists_one", 1, false, What::ExistsOne),
    ("existsOne", 1, false, What::ExistsOne),
    ("map", 1, true, What::List),
    ("filter", 1, false, What::Filter),
    ("optMap", 1, false, What::Optional),
    ("optFlatMap", 1, false, What::OptionalFlat),
    ("all", 2, false, What::All),
    ("exists", 2, false, What::Exists),
    ("existsOne", 2, false, What::ExistsOne),
    ("exists_one", 2, false, What::ExistsOne),
    ("transformList", 2, true, What::List),
    ("transformMap", 2, true, What::Map),
    ("transformMapEntry", 2, true, What::Entries),
];

pub(super) fn expand(
    name: &str,
    target: Option<Expr>,
    mut args: Vec<Expr>,
    at: u32,
) -> Result<Expanded, Wrong> {
    let Some(target) = target else {
        if name != "has" || args.len() != 1 {
            return Ok(Expanded::Call(None, args));
        }
        return match args.pop().map(|only| only.kind) {
            Some(Kind::Select { operand, field, optional: false }) => {
                Ok(Expanded::Macro(Kind::Has { operand, field }))
            }
            _ => Err((at, "invalid argument to has() macro".into())),
        };
    };
    if name == "bind" && args.len() == 3 && target.kind == Kind::Ident("cel".into()) {
        let (Some(body), Some(value), Some(name)) = (args.pop(), args.pop(), args.pop()) else {
            return Ok(Expanded::Call(Some(target), args));
        };
        let name = variable(name)?;
        return Ok(Expanded::Macro(Kind::Bind(Box::new(Bind { name, value, body }))));
    }
    let fold = FOLDS.iter().find(|(macro_name, variables, filtered, _)| {
        *macro_name == name && (args.len() == variables + 1 || *filtered && args.len() == variables + 2)
    });
    let Some((_, variables, _, what)) = fold else { return Ok(Expanded::Call(Some(target), args)) };
    let filtered = args.len() == variables + 2;
    let mut given = args.into_iter();
    let mut next = || given.next().ok_or_else(|| (at, format!("too few arguments to {name}()")));
    let first = variable(next()?)?;
    let second = if *variables == 2 { Some(variable(next()?)?) } else { None };
    let filter = if filtered { Some(next()?) } else { None };
    let body = next()?;
    let fold = Fold { what: *what, range: target, first, second, filter, body };
    Ok(Expanded::Macro(Kind::Fold(Box::new(fold))))
}

fn variable(expr: Expr) -> Result<String, Wrong> {
    match expr.kind {
        Kind::Ident(name) => Ok(name),
        _ => Err((expr.at, "argument must be a simple name".into())),
    }
}
