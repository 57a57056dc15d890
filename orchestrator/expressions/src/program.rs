//! A source that has been parsed and checked.

use std::collections::HashMap;

use regex::Regex;

use crate::ast::Expr;
use crate::budget::Budget;
use crate::check;
use crate::environment::Environment;
use crate::error::{CompileError, EvaluationError};
use crate::evaluate::Evaluation;
use crate::parser;
use crate::types::Type;
use crate::value::Value;
use crate::variables::Variables;

/// A checked expression. Immutable and shared.
#[derive(Debug)]
pub struct Program {
    pub(crate) source: String,
    pub(crate) root: Expr,
    pub(crate) result: Type,
    /// Patterns that stand in the source.
    pub(crate) patterns: HashMap<String, Regex>,
}

/// Parses and checks a source.
///
/// # Errors
/// Everything that is wrong with it, and where: syntax, names nobody declared, types that do not fit.
pub fn compile(source: &str, environment: &Environment) -> Result<Program, CompileError> {
    let root = parser::parse(source).map_err(|wrong| CompileError::new(source, vec![wrong]))?;
    let checked = check::check(&root, environment);
    if !checked.wrong.is_empty() {
        return Err(CompileError::new(source, checked.wrong));
    }
    Ok(Program { source: source.to_owned(), root, result: checked.ty, patterns: checked.patterns })
}

// === impl Program ===

impl Program {
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of what it gives, as far as it is known before.
    pub fn result_type(&self) -> &Type {
        &self.result
    }

    /// Checks that what it gives is of one of these types, known before it is evaluated.
    ///
    /// # Errors
    /// What it gives instead, in the words of upstream.
    pub fn must_give(&self, wanted: &[Type]) -> Result<(), String> {
        if wanted.contains(&self.result) {
            return Ok(());
        }
        let listed: Vec<String> = wanted.iter().map(Type::to_string).collect();
        Err(match &listed[..] {
            [one] => format!("must evaluate to {one} but got {}", self.result),
            several => format!("must evaluate to one of [{}] but got {}", several.join(" "), self.result),
        })
    }

    /// The value under these variables, paid for from `budget`.
    ///
    /// # Errors
    /// What went wrong, or that the budget is spent.
    pub fn evaluate<'a>(
        &'a self,
        variables: &Variables<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvaluationError> {
        let mut meter = budget.meter();
        let result = Evaluation::new(self, variables, &mut meter).run();
        budget.settle(&meter);
        result
    }

    /// As [`Program::evaluate`], of a condition.
    ///
    /// # Errors
    /// As there, and that the value is no bool.
    pub fn holds<'a>(
        &'a self,
        variables: &Variables<'a>,
        budget: &mut Budget,
    ) -> Result<bool, EvaluationError> {
        let value = self.evaluate(variables, budget)?;
        value
            .as_bool()
            .ok_or_else(|| EvaluationError::WrongType { is: value.type_name().to_owned(), wanted: "bool" })
    }
}
