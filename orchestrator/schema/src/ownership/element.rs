//! One step of a path into an object, as text (`f:spec`, `k:{"name":"web"}`) and as people read it (`.spec`).

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

/// A value that names an item of a list. Numbers are compared as numbers, whatever their form.
#[derive(Debug, Clone)]
pub enum Literal {
    /// A number without a fraction.
    Int(i64),
    /// Any other number.
    Float(f64),
    Text(String),
    Bool(bool),
    /// Anything else, as its JSON. It can stand in a set that came from outside only.
    Other(String),
}

/// One step of a path. The order is the one sets are kept in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of a struct or a key of a map.
    Field(String),
    /// An item of a list by the values of its key fields, sorted by field.
    Key(Vec<(String, Literal)>),
    /// An item of a set by its value.
    Value(Literal),
    /// An item by its place.
    Index(i64),
}

/// Why a text is no element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// `f:`, `k:`, `v:` or `i:` must come first.
    #[error("{text:?} does not start with a letter and a colon")]
    NoKind { text: String },
    /// Of a kind this version does not know: to be ignored.
    #[error("{text:?} is of an unknown kind")]
    Unknown { text: String },
    /// What follows the colon is not what its kind asks for.
    #[error("{text:?} cannot be read: {reason}")]
    Malformed { text: String, reason: String },
}

// === impl Literal ===

impl Literal {
    /// The literal of a JSON value.
    pub fn of(value: &Value) -> Literal {
        match value {
            Value::Bool(b) => Literal::Bool(*b),
            Value::String(text) => Literal::Text(text.clone()),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => Literal::Int(int),
                (None, Some(float)) => Literal::of_float(float),
                (None, None) => Literal::Other(number.to_string()),
            },
            other => Literal::Other(other.to_string()),
        }
    }

    fn of_float(float: f64) -> Literal {
        /// Whole numbers below this are exact in both forms.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if float.fract() == 0.0 && float.abs() < EXACT {
            Literal::Int(float as i64)
        } else {
            Literal::Float(float)
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Literal::Int(int) => Value::from(*int),
            Literal::Float(float) => Value::from(*float),
            Literal::Text(text) => Value::from(text.as_str()),
            Literal::Bool(b) => Value::Bool(*b),
            Literal::Other(json) => serde_json::from_str(json).unwrap_or(Value::Null),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Literal::Int(_) | Literal::Float(_) => 0,
            Literal::Text(_) => 1,
            Literal::Bool(_) => 2,
            Literal::Other(_) => 3,
        }
    }
}

impl Ord for Literal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Literal::Int(a), Literal::Int(b)) => a.cmp(b),
            (Literal::Float(a), Literal::Float(b)) => a.total_cmp(b),
            // Of a whole number and one it rounds to, the whole one comes first.
            (Literal::Int(a), Literal::Float(b)) => (*a as f64).total_cmp(b).then(Ordering::Less),
            (Literal::Float(a), Literal::Int(b)) => a.total_cmp(&(*b as f64)).then(Ordering::Greater),
            (Literal::Text(a), Literal::Text(b)) | (Literal::Other(a), Literal::Other(b)) => a.cmp(b),
            (Literal::Bool(a), Literal::Bool(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Literal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Literal {}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_value())
    }
}

// === impl Element ===

impl Element {
    /// A field or a key of a map.
    pub fn field(name: impl Into<String>) -> Element {
        Element::Field(name.into())
    }

    /// The element of a text such as `f:spec`.
    ///
    /// # Errors
    /// A text of another form, or of a kind that is not known.
    pub fn parse(text: &str) -> Result<Element, ElementError> {
        let malformed = |reason: String| ElementError::Malformed { text: text.to_owned(), reason };
        let json = |rest: &str| -> Result<Value, ElementError> {
            serde_json::from_str(rest).map_err(|e| malformed(e.to_string()))
        };
        let Some((kind, rest)) = text.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
            return Err(ElementError::NoKind { text: text.to_owned() });
        };
        match kind {
            "f" => Ok(Element::Field(rest.to_owned())),
            "v" => Ok(Element::Value(Literal::of(&json(rest)?))),
            "k" => match json(rest)? {
                // A map's keys are sorted already.
                Value::Object(keys) => {
                    Ok(Element::Key(keys.iter().map(|(k, v)| (k.clone(), Literal::of(v))).collect()))
                }
                other => Err(malformed(format!("{other} is no object"))),
            },
            "i" => rest.parse().map(Element::Index).map_err(|_| malformed("not an integer".into())),
            _ => Err(ElementError::Unknown { text: text.to_owned() }),
        }
    }

    /// The text [`Element::parse`] reads.
    pub fn to_text(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(keys) => {
                let object: Map<String, Value> =
                    keys.iter().map(|(k, v)| (k.clone(), v.to_value())).collect();
                format!("k:{}", Value::Object(object))
            }
            Element::Value(value) => format!("v:{value}"),
            Element::Index(index) => format!("i:{index}"),
        }
    }
}

/// As messages show it: `.spec`, `[name="web"]`, `[="a"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(keys) => {
                f.write_str("[")?;
                for (at, (key, value)) in keys.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{key}={value}")?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path as messages show it.
pub fn path_text(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_and_written_alike() {
        for text in
            ["f:spec", "f:", "f:a:b/c", "k:{\"name\":\"a\",\"port\":80}", "v:\"x\"", "v:1", "v:true", "i:-3"]
        {
            assert_eq!(Element::parse(text).unwrap().to_text(), text);
        }
        assert_eq!(Element::parse("v:1.0").unwrap(), Element::parse("v:1").unwrap());
        assert_eq!(Element::parse("k:{\"b\":1,\"a\":2}").unwrap().to_text(), "k:{\"a\":2,\"b\":1}");
    }

    #[test]
    fn what_is_no_element_is_refused() {
        for text in ["", "f", "fo:a", "k:[1]", "k:{", "v:", "v:1 2", "i:x", "i:1.5"] {
            let error = Element::parse(text).unwrap_err();
            assert!(!matches!(error, ElementError::Unknown { .. }), "{text}: {error}");
        }
        assert!(matches!(Element::parse("x:1"), Err(ElementError::Unknown { .. })));
    }

    #[test]
    fn elements_print_as_conflicts_show_them() {
        let path = [
            Element::field("spec"),
            Element::parse("k:{\"containerPort\":80,\"protocol\":\"TCP\"}").unwrap(),
            Element::parse("v:\"a\"").unwrap(),
            Element::Index(2),
        ];
        assert_eq!(path_text(&path), ".spec[containerPort=80,protocol=\"TCP\"][=\"a\"][2]");
    }

    #[test]
    fn numbers_are_ordered_as_numbers() {
        let ordered = ["v:-1", "v:0.5", "v:2", "v:10", "v:\"a\"", "v:false", "v:null"];
        let mut elements: Vec<Element> = ordered.iter().rev().map(|t| Element::parse(t).unwrap()).collect();
        elements.sort();
        let texts: Vec<String> = elements.iter().map(Element::to_text).collect();
        assert_eq!(texts, ordered);
    }
}
