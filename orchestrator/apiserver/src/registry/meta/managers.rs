//! What the owners of fields may be called.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::object::items_at;

/// The longest name of a field manager, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// What is wrong with a field manager's name.
pub fn check_name(name: &str, path: &str, errors: &mut Vec<FieldError>) {
    if name.len() > NAME_BYTES_MAX {
        errors.push(FieldError::too_long(path, NAME_BYTES_MAX));
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", c as u32);
        errors.push(FieldError::invalid(path, name, why));
    }
}

/// The name of a field manager that a User-Agent stands for: what comes before its version.
pub fn name_of_agent(agent: &str) -> String {
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// Letters, marks, numbers, punctuation, symbols, and the space.
fn is_printable(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{f0000}'..);
    c == ' ' || !(c.is_control() || c.is_whitespace() || invisible)
}

/// The owners an object names itself: what they are called. Lists that cannot be read are replaced before this.
pub fn validate(list: &Value, errors: &mut Vec<FieldError>) {
    const SUBRESOURCE_BYTES_MAX: usize = 256;
    for (i, entry) in items_at(list, "").iter().enumerate() {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        let path = format!("metadata.managedFields[{i}]");
        check_name(text("manager"), &format!("{path}.manager"), errors);
        if text("subresource").len() > SUBRESOURCE_BYTES_MAX {
            errors.push(FieldError::too_long(format!("{path}.subresource"), SUBRESOURCE_BYTES_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_names_its_program() {
        assert_eq!(name_of_agent("kubectl/v1.36.0 (linux/amd64)"), "kubectl");
        assert_eq!(name_of_agent("my\u{7} tool"), "my tool");
        assert_eq!(name_of_agent(&"ä".repeat(100)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn names_are_short_and_can_be_printed() {
        let faults = |name: &str| {
            let mut errors = Vec::new();
            check_name(name, "fieldManager", &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(faults("me and you, 日本"), Vec::<String>::new());
        assert_eq!(
            faults("a\u{7}"),
            ["fieldManager: Invalid value: \"a\\u0007\": invalid character U+0007 (at position 1)"]
        );
        assert_eq!(faults(&"a".repeat(129)), ["fieldManager: Too long: may not be more than 128 bytes"]);
    }
}
