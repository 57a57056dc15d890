//! `cargo xtask tidy`: the parts of our style that a program can check.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::artifacts::workspace;

/// Lines a source file may have; tables (long literal lists) are exempt by name.
const LINES_MAX: usize = 800;
/// Files that are tables: data in the form of code.
const TABLES: &[&str] = &[];
/// File names that say nothing about what is inside.
const BANNED_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "misc", "manager", "mod"];

pub fn run() -> Result<()> {
    let mut files = Vec::new();
    for folder in ["xtask", "orchestrator", "node-agent", "ebpf", "cni", "tests"] {
        collect(&workspace().join(folder), &mut files)?;
    }
    let mut problems = Vec::new();
    for file in &files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let shown = file.strip_prefix(workspace()).unwrap_or(file).display().to_string();
        problems.extend(check(&shown, &text).into_iter().map(|problem| format!("{shown}: {problem}")));
    }
    if !problems.is_empty() {
        bail!("{} problems\n  {}", problems.len(), problems.join("\n  "));
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|it| it.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// What is wrong with one file.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push("does not open with `//!`: say what this is and why it exists".to_owned());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !TABLES.contains(&path) {
        problems.push(format!("has {lines} lines, {LINES_MAX} at most: find the rooms in it"));
    }
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    if BANNED_NAMES.contains(&stem.as_ref()) {
        problems.push(format!("`{stem}` says nothing about what is inside: name it after that"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_docs_a_bounded_length_and_a_name() {
        assert!(check("a/plan.rs", "//! Plans.\n").is_empty());
        assert_eq!(check("a/plan.rs", "fn plan() {}\n").len(), 1);
        assert_eq!(check("a/utils.rs", "//! x\n").len(), 1);
        assert_eq!(check("a/plan.rs", &"//! x\n".repeat(LINES_MAX + 1)).len(), 1);
    }
}
