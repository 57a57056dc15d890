//! What evaluation may spend. Every step costs, so that no expression runs on for long or fills the memory.

use crate::error::EvaluationError;

/// What one evaluation may spend at most, as upstream.
pub const CALL_COST_MAX: u64 = 1_000_000;
/// What a set of expressions (a policy, an object's rules) may spend at most, as upstream.
pub const SET_COST_MAX: u64 = 10_000_000;

/// What is left for a set of expressions.
#[derive(Debug, Clone)]
pub struct Budget {
    left: u64,
}

/// What is left for one evaluation.
#[derive(Debug)]
pub(crate) struct Meter {
    left: u64,
    granted: u64,
}

// === impl Budget ===

impl Default for Budget {
    fn default() -> Self {
        Self::new(SET_COST_MAX)
    }
}

impl Budget {
    pub fn new(cost_max: u64) -> Self {
        Self { left: cost_max }
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn meter(&self) -> Meter {
        let granted = self.left.min(CALL_COST_MAX);
        Meter { left: granted, granted }
    }

    pub(crate) fn settle(&mut self, meter: &Meter) {
        self.left -= meter.granted - meter.left;
    }
}

// === impl Meter ===

impl Meter {
    pub fn spend(&mut self, cost: u64) -> Result<(), EvaluationError> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(EvaluationError::CostExceeded)
            }
        }
    }

    /// For going through so many characters or items: a tenth each.
    pub fn spend_for(&mut self, length: u64) -> Result<(), EvaluationError> {
        self.spend(length.div_ceil(10))
    }
}
