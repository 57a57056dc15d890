//! Label selectors: compiled once, matched often. Absent selects nothing, empty selects everything, as the API
//! defines it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A compiled selector; all requirements must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Selects no object.
    Nothing,
    /// All of these must hold; none of them means everything.
    All(Vec<Requirement>),
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

/// The condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
    /// An operator or operand that cannot be understood; never true.
    Invalid,
}

impl Requirement {
    /// From the three fields selectors are written with.
    pub fn new(key: &str, operator: &str, values: Option<&Vec<String>>) -> Self {
        let values = values.cloned().unwrap_or_default();
        let number = || values.first().and_then(|v| v.parse::<i64>().ok());
        let operator = match operator {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => number().map_or(Operator::Invalid, Operator::Gt),
            "Lt" => number().map_or(Operator::Invalid, Operator::Lt),
            _ => Operator::Invalid,
        };
        Self { key: key.to_owned(), operator }
    }

    /// Whether the value of the label (absent: `None`) satisfies the requirement.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.iter().any(|x| x == v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt(bound) => number().is_some_and(|n| n > *bound),
            Operator::Lt(bound) => number().is_some_and(|n| n < *bound),
            Operator::Invalid => false,
        }
    }
}

impl Selector {
    /// From the API's form.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else {
            return Self::Nothing;
        };
        let equal = selector.match_labels.iter().flatten().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.clone()]),
        });
        let expressions = selector.match_expressions.iter().flatten();
        let expressions = expressions.map(|e| Requirement::new(&e.key, &e.operator, e.values.as_ref()));
        Self::All(equal.chain(expressions).collect())
    }

    /// From a plain map, as Services and ReplicationControllers have it; an empty map selects nothing.
    pub fn from_map(map: Option<&Labels>) -> Self {
        match map {
            Some(map) if !map.is_empty() => Self::All(
                map.iter()
                    .map(|(key, value)| Requirement {
                        key: key.clone(),
                        operator: Operator::In(vec![value.clone()]),
                    })
                    .collect(),
            ),
            _ => Self::Nothing,
        }
    }

    /// Whether these labels are selected.
    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => {
                requirements.iter().all(|r| r.holds(labels.and_then(|l| l.get(&r.key)).map(String::as_str)))
            }
        }
    }

    /// Whether it selects everything, which no workload may mean.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(requirements) if requirements.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn absent_selects_nothing_and_empty_selects_everything() {
        assert!(!Selector::from_label_selector(None).matches(Some(&labels(&[]))));
        let everything = Selector::from_label_selector(Some(&LabelSelector::default()));
        assert!(everything.is_everything() && everything.matches(None));
        assert!(!Selector::from_map(Some(&labels(&[]))).matches(None));
    }

    #[test]
    fn every_operator_does_what_its_name_says() {
        let cases = [
            ("In", vec!["a", "b"], Some("a"), true),
            ("In", vec!["a"], None, false),
            ("NotIn", vec!["a"], Some("b"), true),
            ("NotIn", vec!["a"], None, true),
            ("NotIn", vec!["a"], Some("a"), false),
            ("Exists", vec![], Some(""), true),
            ("Exists", vec![], None, false),
            ("DoesNotExist", vec![], None, true),
            ("Gt", vec!["3"], Some("4"), true),
            ("Gt", vec!["3"], Some("3"), false),
            ("Lt", vec!["3"], Some("x"), false),
            ("Near", vec!["3"], Some("3"), false),
        ];
        for (operator, values, value, expected) in cases {
            let selector = LabelSelector {
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: "k".into(),
                    operator: operator.into(),
                    values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
                }]),
                ..Default::default()
            };
            let object = value.map(|v| labels(&[("k", v)]));
            let got = Selector::from_label_selector(Some(&selector)).matches(object.as_ref());
            assert_eq!(got, expected, "{operator} {values:?} on {value:?}");
        }
    }
}
