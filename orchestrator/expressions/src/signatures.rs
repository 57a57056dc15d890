//! Every function and operator with the types it takes and gives: one table, read once.
//!
//! `A` and `B` stand for any one type. What a function does is in `library`, by the same name.

mod table;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::types::Type;

/// One way to call a function.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Overload {
    /// Whether the first parameter stands before the dot.
    pub member: bool,
    pub parameters: Vec<Type>,
    pub result: Type,
}

/// The overloads of a function.
pub(crate) fn overloads(name: &str) -> &'static [Overload] {
    all().get(name).map_or(&[], Vec::as_slice)
}

pub(crate) fn is_function(name: &str) -> bool {
    all().contains_key(name)
}

fn all() -> &'static HashMap<&'static str, Vec<Overload>> {
    static ALL: OnceLock<HashMap<&'static str, Vec<Overload>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all: HashMap<_, Vec<Overload>> = HashMap::new();
        for line in table::TABLE.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let Some((name, rest)) = line.split_once(' ') else { continue };
            let (member, rest) = match rest.split_once(".(") {
                Some((target, rest)) => (Some(target), format!("({rest}")),
                None => (None, rest.to_owned()),
            };
            let Some((arguments, result)) = rest.split_once(" -> ") else { continue };
            let mut parameters: Vec<Type> = member.into_iter().map(type_of).collect();
            parameters.extend(split(arguments.trim_matches(|c| c == '(')).into_iter().map(|t| type_of(&t)));
            let overload = Overload { member: member.is_some(), parameters, result: type_of(result) };
            all.entry(name).or_default().push(overload);
        }
        all
    })
}

/// The parts between commas that stand in no brackets, up to the bracket that closes what was opened before.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            ' ' => continue,
            _ => {}
        }
        part.push(c);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn type_of(text: &str) -> Type {
    let text = text.trim();
    let inside = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')').map(split);
    if let Some(items) = inside("list") {
        return Type::list(type_of(&items[0]));
    }
    if let Some(items) = inside("map") {
        return Type::map(type_of(&items[0]), type_of(&items[1]));
    }
    if let Some(items) = inside("optional") {
        return Type::optional(type_of(&items[0]));
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null" => Type::Null,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type,
        "A" | "B" => Type::Parameter(text.as_bytes()[0]),
        other => {
            OPAQUE.iter().find(|name| name.ends_with(other)).map_or(Type::Dyn, |name| Type::Opaque(name))
        }
    }
}

pub(crate) const QUANTITY: &str = "kubernetes.Quantity";
pub(crate) const URL: &str = "kubernetes.URL";
pub(crate) const IP: &str = "net.IP";
pub(crate) const CIDR: &str = "net.CIDR";
pub(crate) const SEMVER: &str = "kubernetes.Semver";
pub(crate) const FORMAT: &str = "kubernetes.NamedFormat";
/// The type of `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub(crate) const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
pub(crate) const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
/// The type of `authorizer.requestResource`.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub(crate) const DECISION: &str = "kubernetes.authorization.Decision";

const OPAQUE: &[&str] =
    &[QUANTITY, URL, IP, CIDR, SEMVER, FORMAT, AUTHORIZER, PATH_CHECK, GROUP_CHECK, RESOURCE_CHECK, DECISION];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let lines = table::TABLE.lines().filter(|line| !line.trim().is_empty()).count();
        assert_eq!(all().values().map(Vec::len).sum::<usize>(), lines);
        let fold = &overloads("join")[1];
        assert!(fold.member && fold.parameters == [Type::list(Type::String), Type::String]);
        assert_eq!(overloads("getQuery")[0].result.to_string(), "map(string, list(string))");
        let named = &overloads("format.named")[0].result;
        assert_eq!(named.to_string(), "optional_type(kubernetes.NamedFormat)");
    }
}
