//! Macros over lists and maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Evaluated, Evaluation};
use crate::ast::{Fold, What};
use crate::error::EvaluationError;
use crate::library;
use crate::value::{Key, List, Map, Value};

/// What each turn costs beside what is evaluated in it.
const TURN_COST: u64 = 3;

/// What has been collected so far.
enum Collected<'a> {
    /// The answer of `all`, `exists` while nothing has decided it, with the first error.
    Undecided(Option<EvaluationError>),
    Count(usize),
    Items(Vec<Value<'a>>),
    Entries(BTreeMap<Key, Value<'a>>),
}

impl<'a> Evaluation<'_, 'a> {
    pub(super) fn fold(&mut self, fold: &'a Fold) -> Evaluated<'a> {
        let range = self.value(&fold.range)?;
        match (&range, fold.what) {
            (Value::Optional(None), What::Optional | What::OptionalFlat) => return Ok(Value::Optional(None)),
            (Value::Optional(Some(inner)), What::Optional | What::OptionalFlat) => {
                let value =
                    self.within(&fold.first, (**inner).clone(), |evaluation| evaluation.value(&fold.body))?;
                return Ok(if fold.what == What::Optional { Value::some(value) } else { value });
            }
            _ => {}
        }
        let mut collected = match fold.what {
            What::All | What::Exists => Collected::Undecided(None),
            What::ExistsOne => Collected::Count(0),
            What::List | What::Filter => Collected::Items(Vec::new()),
            What::Map | What::Entries => Collected::Entries(BTreeMap::new()),
            What::Optional | What::OptionalFlat => return Err(library::no_overload("optMap", &[range])),
        };
        match &range {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let index = Value::Int(index as i64);
                    if self.turn(fold, index, item, true, &mut collected)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let Some(value) = map.get(&key) else { continue };
                    if self.turn(fold, key.value(), value, false, &mut collected)? {
                        break;
                    }
                }
            }
            other => return Err(library::no_overload("@fold", std::slice::from_ref(other))),
        }
        match collected {
            Collected::Undecided(Some(error)) => Err(error),
            Collected::Undecided(None) => Ok(Value::Bool(fold.what == What::All)),
            Collected::Count(count) => Ok(Value::Bool(count == 1)),
            Collected::Items(items) => Ok(Value::List(List::Made(Arc::new(items)))),
            Collected::Entries(entries) => Ok(Value::Map(Map::Made(Arc::new(entries)))),
        }
    }

    /// One item or entry; true when the rest does not matter.
    fn turn(
        &mut self,
        fold: &'a Fold,
        key: Value<'a>,
        value: Value<'a>,
        of_list: bool,
        collected: &mut Collected<'a>,
    ) -> Result<bool, EvaluationError> {
        self.meter.spend(TURN_COST)?;
        let kept_key = key.clone();
        let (first, second) = match &fold.second {
            Some(name) => (key, Some((name.as_str(), value))),
            None => (if of_list { value } else { key }, None),
        };
        let item = first.clone();
        let scopes = self.scopes.len();
        self.scopes.push((&fold.first, first));
        self.scopes.extend(second);
        let result = self.step(fold, item, kept_key, collected);
        self.scopes.truncate(scopes);
        result
    }

    fn step(
        &mut self,
        fold: &'a Fold,
        item: Value<'a>,
        key: Value<'a>,
        collected: &mut Collected<'a>,
    ) -> Result<bool, EvaluationError> {
        if let Some(filter) = &fold.filter
            && !condition(self.value(filter)?)?
        {
            return Ok(false);
        }
        let body = self.value(&fold.body);
        match collected {
            Collected::Undecided(failed) => match body.and_then(condition) {
                Ok(value) => {
                    if value == (fold.what == What::Exists) {
                        // Nothing outweighs what decides.
                        *collected = Collected::Count(usize::from(value));
                        return Ok(true);
                    }
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            },
            Collected::Count(count) => *count += usize::from(condition(body?)?),
            Collected::Items(items) if fold.what == What::Filter => {
                if condition(body?)? {
                    items.push(item);
                }
            }
            Collected::Items(items) => items.push(body?),
            Collected::Entries(entries) if fold.what == What::Entries => match body? {
                Value::Map(made) => {
                    for key in made.keys() {
                        self.meter.spend(1)?;
                        if let Some(value) = made.get(&key)
                            && entries.insert(key.clone(), value).is_some()
                        {
                            return Err(EvaluationError::function(format!(
                                "insert failed: key {key} already exists"
                            )));
                        }
                    }
                }
                other => return Err(library::no_overload("transformMapEntry", &[other])),
            },
            Collected::Entries(entries) => {
                let body = body?;
                entries.extend(Key::of(&key).map(|key| (key, body)));
            }
        }
        Ok(false)
    }
}

fn condition(value: Value<'_>) -> Result<bool, EvaluationError> {
    value.as_bool().ok_or_else(|| library::no_overload("_&&_", &[value]))
}
