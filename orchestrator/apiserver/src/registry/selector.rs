//! Label and field selectors: parsed once a request, matched against what a [`CachedObject`] extracted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::definition::Definition;
use super::meta::names;
use super::object::CachedObject;
use crate::error::ApiError;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::Greater(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Operator::Less(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        }
    }
}

/// A parsed `labelSelector`: every requirement must hold. Empty matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|r| r.matches(labels))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The query parameter's grammar: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let refuse = |why: &str| ApiError::bad_request(format!("unable to parse requirement: {why}"));
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(refuse("found ',', expected: identifier after ','"));
            }
            requirements.push(parse_requirement(part).map_err(|why| refuse(&why))?);
        }
        Ok(Self(requirements))
    }

    /// The metav1 LabelSelector of an object. An absent selector matches nothing, an empty one everything.
    pub fn from_object(selector: &Value) -> Option<Self> {
        let mut requirements = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let value = value.as_str()?.to_string();
                requirements.push(Requirement { key: key.clone(), operator: Operator::In(vec![value]) });
            }
        }
        for e in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = e.get("key")?.as_str()?.to_string();
            let values: Vec<String> = super::object::items_at(e, "/values")
                .iter()
                .filter_map(|v| v.as_str().map(str::to_string))
                .collect();
            let operator = match e.get("operator")?.as_str()? {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Absent,
                _ => return None,
            };
            requirements.push(Requirement { key, operator });
        }
        Some(Self(requirements))
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, String> {
    let key = |text: &str| -> Result<String, String> {
        let text = text.trim();
        match names::qualified_name(text) {
            None => Ok(text.to_string()),
            Some(why) => Err(format!("key: Invalid value: \"{text}\": {why}")),
        }
    };
    let value = |text: &str| -> Result<String, String> {
        let text = text.trim();
        match names::label_value(text) {
            None => Ok(text.to_string()),
            Some(why) => Err(format!("values[0][{part}]: Invalid value: \"{text}\": {why}")),
        }
    };
    if let Some(rest) = part.strip_prefix('!')
        && !rest.contains('=')
    {
        return Ok(Requirement { key: key(rest)?, operator: Operator::Absent });
    }
    if let Some((head, tail)) = part.split_once('(') {
        let list = tail.trim_end().strip_suffix(')').ok_or("found '', expected: ',', or ')'")?;
        let values: Vec<String> = list.split(',').map(value).collect::<Result<_, _>>()?;
        let mut words = head.split_whitespace();
        let (name, operator) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let operator = match (operator, words.next()) {
            ("in", None) => Operator::In(values),
            ("notin", None) => Operator::NotIn(values),
            (other, _) => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        return Ok(Requirement { key: key(name)?, operator });
    }
    let number = |text: &str| {
        text.trim()
            .parse::<i64>()
            .map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_string())
    };
    if let Some((k, v)) = part.split_once("!=") {
        return Ok(Requirement { key: key(k)?, operator: Operator::NotIn(vec![value(v)?]) });
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement { key: key(k)?, operator: Operator::In(vec![value(v)?]) });
    }
    if let Some((k, v)) = part.split_once('>') {
        return Ok(Requirement { key: key(k)?, operator: Operator::Greater(number(v)?) });
    }
    if let Some((k, v)) = part.split_once('<') {
        return Ok(Requirement { key: key(k)?, operator: Operator::Less(number(v)?) });
    }
    Ok(Requirement { key: key(part)?, operator: Operator::Exists })
}

/// A parsed `fieldSelector`: `(label, value, equal)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    pub fn parse(text: &str, definition: &Definition) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for part in split_escaped(text) {
            if part.is_empty() {
                continue;
            }
            let (label, value, equal) = if let Some((l, v)) = part.split_once("!=") {
                (l, v, false)
            } else if let Some((l, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (l, v, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let known = matches!(label, "metadata.name" | "metadata.namespace")
                || definition.field_labels.iter().any(|known| known == label);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {label}")));
            }
            terms.push((label.to_string(), unescape(value), equal));
        }
        Ok(Self(terms))
    }

    pub fn matches(&self, object: &CachedObject) -> bool {
        self.0
            .iter()
            .all(|(label, value, equal)| (object.field(label).unwrap_or_default() == value) == *equal)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn split_escaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut escaped = false;
    for c in text.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

/// Both selectors of a list or watch.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub fn parse(
        labels: Option<&str>,
        fields: Option<&str>,
        definition: &Definition,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            labels: LabelSelector::parse(labels.unwrap_or_default())?,
            fields: FieldSelector::parse(fields.unwrap_or_default(), definition)?,
        })
    }

    pub fn matches(&self, object: &CachedObject) -> bool {
        self.labels.matches(&object.labels) && self.fields.matches(object)
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, expect: bool) {
        let labels: BTreeMap<String, String> =
            [("app", "web"), ("tier", "front"), ("n", "5")].map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(LabelSelector::parse(selector).unwrap().matches(&labels), expect, "{selector}");
    }

    #[test]
    fn label_selectors_select() {
        check("", true);
        check("app=web", true);
        check("app==web,tier!=back", true);
        check("app in (api, web),tier notin (back)", true);
        check("app notin (web)", false);
        check("!app", false);
        check("!gone,app", true);
        check("n>4,n<6", true);
        check("n>5", false);
        check("gone!=x", true);
        check("app=", false);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["a b", "app in web", "a,,b", "x in (a", "n>x", "=a"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn escaped_commas_stay_in_field_values() {
        assert_eq!(split_escaped(r"a=b\,c,d=e"), vec![r"a=b\,c", "d=e"]);
        assert_eq!(unescape(r"b\,c\=\\"), r"b,c=\");
    }
}
