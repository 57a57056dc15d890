//! What can be wrong with a source, and what can go wrong when it is evaluated.

use std::fmt;

/// One thing wrong with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
}

/// Why a source is no program: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    pub issues: Vec<Issue>,
    source_text: String,
}

// === impl CompileError ===

impl CompileError {
    pub(crate) fn new(source: &str, found: Vec<(u32, String)>) -> Self {
        let mut issues: Vec<Issue> = found
            .into_iter()
            .map(|(at, message)| {
                let before = &source[..source.floor_char_boundary(at as usize)];
                let start = before.rfind('\n').map_or(0, |newline| newline + 1);
                let line = before.matches('\n').count() + 1;
                Issue { line, column: before[start..].chars().count() + 1, message }
            })
            .collect();
        issues.sort_by_key(|issue| (issue.line, issue.column));
        issues.dedup();
        Self { issues, source_text: source.to_owned() }
    }
}

impl fmt::Display for CompileError {
    /// As clients of upstream know it: the message, the line, and a mark below the column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let line = self.source_text.lines().nth(issue.line - 1).unwrap_or_default();
            let dots = ".".repeat(issue.column - 1);
            write!(f, "ERROR: <input>:{}:{}: {}", issue.line, issue.column, issue.message)?;
            write!(f, "\n | {}\n | {dots}^", line.replace('\t', " "))?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

/// Why an evaluation has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    #[error("no such key: {key}")]
    NoSuchKey { key: String },
    #[error("no such overload: {call}")]
    NoSuchOverload { call: String },
    #[error("no such attribute(s): {name}")]
    NoSuchVariable { name: String },
    #[error("index out of bounds: {index}")]
    OutOfBounds { index: i64 },
    #[error("division by zero")]
    DivisionByZero,
    #[error("modulus by zero")]
    ModulusByZero,
    #[error("{kind} overflow")]
    Overflow { kind: &'static str },
    #[error("optional.none() dereference")]
    NoneDereferenced,
    /// A function refused its arguments.
    #[error("{detail}")]
    Function { detail: String },
    /// A variable of a set could not be computed.
    #[error("composited variable {name:?} fails to evaluate: {detail}")]
    Variable { name: String, detail: String },
    /// The expression, or the set of expressions it is of, may spend no more.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostExceeded,
    #[error("expressions are nested too deeply to be evaluated")]
    TooDeep,
    /// The result is not of the type that the use of the expression asks for.
    #[error("expression evaluates to {is}, not {wanted}")]
    WrongType { is: String, wanted: &'static str },
}

impl EvaluationError {
    pub(crate) fn function(detail: impl Into<String>) -> Self {
        EvaluationError::Function { detail: detail.into() }
    }

    /// Whether nothing may go on after this; other errors can be outweighed in `&&` and `||`.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, EvaluationError::CostExceeded | EvaluationError::TooDeep)
    }
}
