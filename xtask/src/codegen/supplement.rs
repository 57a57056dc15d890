//! Reads the supplement: facts the crates do not hold. Its format is described at its head.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The facts.
#[derive(Debug, Default)]
pub struct Supplement {
    /// `Type.field` → protobuf number path.
    pub numbers: BTreeMap<String, String>,
    /// `Type.field` of optional fields whose zero is a value of its own.
    pub pointers: BTreeSet<String>,
    /// Names of constants the `+default=ref(…)` markers use → JSON.
    pub constants: BTreeMap<String, String>,
    /// `Type.field` → attributes that replace the derived ones.
    pub attributes: BTreeMap<String, String>,
    /// Further kinds a type is served as, by name.
    pub served: BTreeMap<String, Vec<String>>,
    /// Whole types in the table's own notation, by name.
    pub types: BTreeMap<String, Vec<String>>,
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Supplement> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut out = Supplement::default();
    let mut current: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "number" | "attribute" | "constant" => {
                let (name, value) =
                    rest.split_once(' ').with_context(|| format!("line {}: {line}", index + 1))?;
                let into = match word {
                    "number" => &mut out.numbers,
                    "attribute" => &mut out.attributes,
                    _ => &mut out.constants,
                };
                into.insert(name.to_owned(), value.to_owned());
            }
            "served" => {
                let mut words = rest.split(' ').map(str::to_owned);
                let name = words.next().unwrap_or_default();
                out.served.entry(name).or_default().extend(words);
            }
            "pointer" => {
                let mut words = rest.split(' ');
                let name = words.next().unwrap_or_default();
                out.pointers.extend(words.map(|field| format!("{name}.{field}")));
            }
            "type" => {
                current = Some(rest.to_owned());
                out.types.insert(rest.to_owned(), Vec::new());
            }
            "kind" | "f" | "d" | "doc" | "atomic" => {
                let name = current.as_ref().with_context(|| format!("line {} is of no type", index + 1))?;
                out.types.entry(name.clone()).or_default().push(line.to_owned());
            }
            other => bail!("line {}: unknown word {other}", index + 1),
        }
    }
    Ok(out)
}
