//! How fields are called in expressions whose names are none: `foo-bar` is `foo__dash__bar`.

/// How names that are no names of expressions are written in them.
const ESCAPES: &[(&str, &str)] =
    &[("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];

/// Words of the language, which are written between underscores.
const WORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// The JSON name of what an expression calls `name`.
pub fn unescaped(name: &str) -> String {
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| WORDS.contains(word)) {
        return word.to_owned();
    }
    let (mut out, mut rest) = (String::new(), name);
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape)) {
            Some((escape, text)) => {
                out.push_str(text);
                rest = &rest[escape.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_upstream() {
        for (name, json) in [
            ("foo__dash__bar", "foo-bar"),
            ("a__dot__b__slash__c", "a.b/c"),
            ("__namespace__", "namespace"),
            ("redact__underscores__d", "redact__d"),
            ("plain_name", "plain_name"),
        ] {
            assert_eq!(unescaped(name), json);
        }
    }
}
