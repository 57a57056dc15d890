//! The part of kubectl's JSONPath that printer columns and selectable fields use: fields, indices, `[*]`, and filters
//! by one comparison.

use serde_json::Value;

/// Steps a path may have.
const STEPS_MAX: usize = 64;

/// A parsed path such as `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// Counted from the end when negative.
    Index(i64),
    All,
    /// Items whose value at the path compares so.
    Where {
        path: JsonPath,
        equal: bool,
        value: Value,
    },
    /// Items that have something at the path.
    Has(JsonPath),
}

// === impl JsonPath ===

impl JsonPath {
    /// None for what is no path, or more of JSONPath than is supported.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let mut rest = text.trim();
        rest = rest.strip_prefix('$').unwrap_or(rest);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == STEPS_MAX {
                return None;
            }
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => bracket(inside)?,
                None => {
                    let (name, after) = field(rest.strip_prefix('.')?);
                    match name.as_str() {
                        // A lone dot is the object itself; two are a search, which is not supported.
                        "" if after.is_empty() && steps.is_empty() => break,
                        "" if after.starts_with('[') => {
                            rest = after;
                            continue;
                        }
                        "" => return None,
                        "*" => (Step::All, after),
                        _ => (Step::Field(name), after),
                    }
                }
            };
            steps.push(step);
            rest = after;
        }
        Some(JsonPath { steps })
    }

    /// The names of a path that has only fields.
    pub fn fields(&self) -> Option<Vec<&str>> {
        fn name(step: &Step) -> Option<&str> {
            match step {
                Step::Field(name) => Some(name),
                _ => None,
            }
        }
        self.steps.iter().map(name).collect()
    }

    /// The first value the path leads to.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        first(&self.steps, value)
    }
}

fn first<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    let items = || value.as_array().into_iter().flatten();
    match step {
        Step::Field(name) => first(rest, value.get(name)?),
        Step::Index(index) => {
            let list = value.as_array()?;
            let at = if *index < 0 {
                list.len().checked_sub(index.unsigned_abs() as usize)?
            } else {
                *index as usize
            };
            first(rest, list.get(at)?)
        }
        Step::All => match value {
            Value::Object(fields) => fields.values().find_map(|value| first(rest, value)),
            _ => items().find_map(|item| first(rest, item)),
        },
        Step::Where { path, equal, value } => {
            let fits = |item: &&Value| path.first(item).is_some_and(|found| (found == value) == *equal);
            items().filter(fits).find_map(|item| first(rest, item))
        }
        Step::Has(path) => {
            items().filter(|item| path.first(item).is_some()).find_map(|item| first(rest, item))
        }
    }
}

/// A field's name up to the next step; a backslash makes the next character part of it.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// What stands in brackets, and what follows them.
fn bracket(inside: &str) -> Option<(Step, &str)> {
    if let Some(filter) = inside.strip_prefix("?(") {
        let end = filter.find(")]")?;
        return Some((comparison(filter[..end].trim())?, &filter[end + 2..]));
    }
    for quote in ['\'', '"'] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let end = quoted.find(quote)?;
            let name = quoted[..end].replace('\\', "");
            return Some((Step::Field(name), quoted[end + 1..].strip_prefix(']')?));
        }
    }
    let (text, rest) = inside.split_once(']')?;
    match text.trim() {
        "*" | "" => Some((Step::All, rest)),
        number => Some((Step::Index(number.parse().ok()?), rest)),
    }
}

/// `@.type=="Ready"`, `@.ready!=true`, `@.name`.
fn comparison(text: &str) -> Option<Step> {
    let path = |side: &str| JsonPath::parse(side.trim().strip_prefix('@')?);
    for (operator, equal) in [("==", true), ("!=", false)] {
        if let Some((left, right)) = text.split_once(operator) {
            let right = right.trim();
            let quoted = ['"', '\''].iter().find_map(|q| right.strip_prefix(*q)?.strip_suffix(*q));
            let value = match quoted {
                Some(text) => Value::from(text),
                None => serde_json::from_str(right).ok()?,
            };
            return Some(Step::Where { path: path(left)?, equal, value });
        }
    }
    path(text).map(Step::Has)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(path: &str, expect: Value) {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "dotted"}},
            "spec": {"size": 3, "list": [{"n": "x"}, {"n": "y"}]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        let found = JsonPath::parse(path).unwrap().first(&object).cloned().unwrap_or_default();
        assert_eq!(found, expect, "{path}");
    }

    #[test]
    fn paths_lead_where_kubectls_do() {
        check(".spec.size", json!(3));
        check(".spec.list[1].n", json!("y"));
        check(".spec.list[-1].n", json!("y"));
        check(".spec.list[*].n", json!("x"));
        check(r".metadata.labels.a\.b/c", json!("dotted"));
        check(".metadata.labels['a.b/c']", json!("dotted"));
        check(r#".status.conditions[?(@.type=="Ready")].status"#, json!("True"));
        check(".status.conditions[?(@.type=='Gone')].status", json!(null));
        check(".status.conditions[?(@.type!='Other')].status", json!("True"));
        check(".spec.gone.deeper", json!(null));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["spec.size", "..size", ".a[", ".a[x]", ".a[?(1)]"] {
            assert!(JsonPath::parse(text).is_none(), "{text}");
        }
        assert_eq!(JsonPath::parse(".spec.a").unwrap().fields(), Some(vec!["spec", "a"]));
        assert_eq!(JsonPath::parse(".spec.a[0]").unwrap().fields(), None);
    }
}
