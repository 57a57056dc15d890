//! Sight: flows, drop reasons, map fill levels.
