//! YAML into an object of a type, and objects into YAML.

use crate::json::BYTES_MAX;
use crate::{DecodeError, Decoded, EncodeError, Schema, Type, TypeRef, Value, walk};

/// Decodes one YAML document (JSON is YAML) as `ty`, as [`crate::json::decode`] does JSON.
///
/// Scalars are read by the type of their field, so that what YAML 1.1 allows without quotes (`yes`, `0644`)
/// means there what kubectl's users expect. Aliases may unfold to [`crate::json::VALUES_MAX`] values.
///
/// # Errors
/// As for JSON; more than one document is an error.
pub fn decode(ty: &TypeRef, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() > BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), bytes_max: BYTES_MAX });
    }
    check_open(bytes)?;
    let broken = |error: serde_yaml::Error| DecodeError::Yaml { reason: error.to_string() };
    walk::decode(ty, serde_yaml::Deserializer::from_slice(bytes), true, broken)
}

/// Brackets that may be open at once, wherever they stand. The parser looks at every open one for every token, so that
/// its work grows with the product of both; documents that are taken nest less by far.
const OPEN_MAX: usize = 256;

fn check_open(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut open = 0_usize;
    for byte in bytes {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > OPEN_MAX {
            let reason = format!("exceeded max depth of {OPEN_MAX} open brackets");
            return Err(DecodeError::Yaml { reason });
        }
    }
    Ok(())
}

/// Decodes one YAML document of no known type, within the same limits.
///
/// # Errors
/// As for [`decode`], but for what types refuse.
pub fn decode_untyped(bytes: &[u8]) -> Result<Value, DecodeError> {
    if bytes.len() > BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), bytes_max: BYTES_MAX });
    }
    check_open(bytes)?;
    let broken = |error: serde_yaml::Error| DecodeError::Yaml { reason: error.to_string() };
    let deserializer = serde_yaml::Deserializer::from_slice(bytes);
    let decoded = walk::decode_as(&Schema::builtin(), &Type::Raw, deserializer, true, broken)?;
    Ok(decoded.object)
}

/// Writes an object as YAML.
///
/// # Errors
/// None for objects that came from a decoder of this crate.
pub fn encode(v: &Value) -> Result<String, EncodeError> {
    serde_yaml::to_string(v).map_err(|e| EncodeError::Yaml { reason: e.to_string() })
}

/// The line, from 1, on which a key is said again in the same map, of a document in block style.
pub fn line_of_duplicate(document: &str, key: &str) -> Option<usize> {
    // Indentation of the key's first line, while its map may go on.
    let mut said: Vec<usize> = Vec::new();
    for (index, line) in document.lines().enumerate() {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let indent = line.len() - text.len();
        said.retain(|known| *known <= indent);
        let (start, name) = match text.strip_prefix("- ") {
            Some(item) => (indent + 2, item.trim_start()),
            None => (indent, text),
        };
        if start > indent {
            // Another item of the list is another map.
            said.retain(|known| *known < start);
        }
        let name = name.split_once(':').map(|(name, _)| name.trim().trim_matches(['"', '\'']));
        if name == Some(key) {
            if said.contains(&start) {
                return Some(index + 1);
            }
            said.push(start);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::line_of_duplicate;

    #[test]
    fn a_key_said_again_in_its_map_is_found_and_one_of_another_map_is_not() {
        let document = "\nspec:\n  foo: 1\n  # foo: 2\n  other:\n    foo: 3\n  \"foo\": 4\n";
        assert_eq!(line_of_duplicate(document, "foo"), Some(7));
        assert_eq!(line_of_duplicate("a:\n  foo: 1\nb:\n  foo: 2\n", "foo"), None);
        assert_eq!(line_of_duplicate("l:\n- foo: 1\n- foo: 2\n", "foo"), None);
        assert_eq!(line_of_duplicate("l:\n- foo: 1\n  foo: 2\n", "foo"), Some(3));
        assert_eq!(line_of_duplicate("", "foo"), None);
    }
}
