//! What plugins remember while one object is admitted: whether somebody changed it, and who wants to see it again.

use std::collections::HashSet;

use parking_lot::Mutex;
use serde_json::Value;

/// The state of one admission; fresh for each.
#[derive(Default)]
pub struct Rounds(Mutex<State>);

#[derive(Default)]
struct State {
    second: bool,
    wants_second: bool,
    touched: bool,
    /// Webhooks that ran, want to run again when something changes, and have seen the newest form.
    seen_newest: HashSet<String>,
    /// Webhooks that must run again.
    to_reinvoke: HashSet<String>,
    /// The object as the last webhook left it.
    last_output: Option<Value>,
}

// === impl Rounds ===

impl Rounds {
    /// Whether the plugins are to run once more; they do so at most once.
    pub(crate) fn begin_second(&self) -> bool {
        let mut state = self.0.lock();
        let begins = state.wants_second && !state.second;
        state.second |= begins;
        begins
    }

    pub(crate) fn is_second(&self) -> bool {
        self.0.lock().second
    }

    /// Somebody outside of this program changed the object.
    pub(crate) fn is_touched(&self) -> bool {
        self.0.lock().touched
    }

    /// Webhooks begin: what plugins changed since they ran makes those run again that asked for it.
    pub(crate) fn begin_webhooks(&self, object: Option<&Value>) {
        let mut state = self.0.lock();
        if state.second && state.last_output.as_ref() != object {
            state.reinvoke_earlier();
        }
    }

    pub(crate) fn end_webhooks(&self, object: Option<&Value>) {
        let mut state = self.0.lock();
        if state.wants_second && !state.second {
            state.last_output = object.cloned();
        }
    }

    pub(crate) fn is_to_be_reinvoked(&self, webhook: &str) -> bool {
        self.0.lock().to_reinvoke.contains(webhook)
    }

    /// A webhook ran. Its change makes the plugins and the webhooks before it run again.
    pub(crate) fn ran(&self, webhook: &str, changed: bool, wants_again: bool) {
        let mut state = self.0.lock();
        if changed {
            state.touched = true;
            state.wants_second = true;
            state.reinvoke_earlier();
        }
        if wants_again {
            state.seen_newest.insert(webhook.to_owned());
        }
    }
}

impl State {
    fn reinvoke_earlier(&mut self) {
        let earlier = std::mem::take(&mut self.seen_newest);
        self.to_reinvoke.extend(earlier);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_webhooks_before_a_change_run_again_and_only_when_they_ask_for_it() {
        let rounds = Rounds::default();
        rounds.begin_webhooks(Some(&json!(0)));
        rounds.ran("first", true, true);
        rounds.ran("silent", true, false);
        rounds.ran("last", true, true);
        rounds.end_webhooks(Some(&json!(1)));
        assert!(rounds.begin_second() && !rounds.begin_second());
        rounds.begin_webhooks(Some(&json!(1)));
        assert_eq!(["first", "silent", "last"].map(|w| rounds.is_to_be_reinvoked(w)), [true, false, false]);
    }

    #[test]
    fn a_change_of_a_plugin_calls_all_webhooks_that_ask_for_it() {
        let rounds = Rounds::default();
        rounds.begin_webhooks(Some(&json!(0)));
        rounds.ran("only", true, true);
        rounds.end_webhooks(Some(&json!(1)));
        assert!(rounds.begin_second());
        rounds.begin_webhooks(Some(&json!(2)));
        assert!(rounds.is_to_be_reinvoked("only"));
    }

    #[test]
    fn nothing_runs_twice_without_a_change() {
        let rounds = Rounds::default();
        rounds.ran("only", false, true);
        assert!(!rounds.begin_second());
    }
}
