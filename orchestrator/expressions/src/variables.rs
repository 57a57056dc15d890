//! The values of one evaluation, or of many of one set.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::budget::Meter;
use crate::error::EvaluationError;
use crate::evaluate::Evaluation;
use crate::program::Program;
use crate::value::Value;

/// Variables by name. Those of the set (`variables.name`) are computed when they are used first, and kept.
#[derive(Default)]
pub struct Variables<'a> {
    values: HashMap<&'a str, Value<'a>>,
    composed: HashMap<&'a str, &'a Program>,
    computed: RefCell<HashMap<&'a str, Result<Value<'a>, EvaluationError>>>,
    /// How deep variables refer to variables at this moment.
    nesting: Cell<usize>,
}

/// How deep variables may refer to variables.
const NESTING_MAX: usize = 16;

// === impl Variables ===

impl<'a> Variables<'a> {
    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.values.insert(name, value);
        self
    }

    /// A variable of the set.
    #[must_use]
    pub fn with_composed(mut self, name: &'a str, program: &'a Program) -> Self {
        self.composed.insert(name, program);
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value<'a>> {
        self.values.get(name).cloned()
    }

    pub(crate) fn has_composed(&self) -> bool {
        !self.composed.is_empty()
    }

    /// The value of `variables.name`; `None` if there is none of the name.
    pub(crate) fn composed(
        &self,
        name: &str,
        meter: &mut Meter,
    ) -> Option<Result<Value<'a>, EvaluationError>> {
        if let Some(known) = self.computed.borrow().get(name) {
            return Some(known.clone());
        }
        let (name, program) = self.composed.get_key_value(name)?;
        if self.nesting.get() == NESTING_MAX {
            return Some(Err(EvaluationError::TooDeep));
        }
        self.nesting.set(self.nesting.get() + 1);
        let result = Evaluation::new(program, self, meter).run();
        self.nesting.set(self.nesting.get() - 1);
        let result = result.map_err(|error| match error {
            last if last.is_final() => last,
            other => EvaluationError::Variable { name: (*name).to_owned(), detail: other.to_string() },
        });
        self.computed.borrow_mut().insert(name, result.clone());
        Some(result)
    }
}
