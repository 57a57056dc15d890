//! Rows as bars: an SVG for each measure, its cases beside each other on one scale.
//!
//! Plain text, since a bar needs no library. Must not know what is measured.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::Row;

const BAR_HEIGHT: usize = 22;
const LABELS_WIDTH: usize = 560;
const BARS_WIDTH: usize = 420;
const VALUES_WIDTH: usize = 120;
const TOP: usize = 40;

/// Writes a file for each measure into a folder, made if it is not there.
pub fn write(folder: &Path, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for ((measure, unit), rows) in by_measure(rows) {
        let file = folder.join(format!("{}.svg", file_name(&format!("{measure} {unit}"))));
        std::fs::write(&file, render(&format!("{measure} ({unit})"), &rows))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Rows that have a value, by what their names have in common and their unit.
fn by_measure(rows: &[Row]) -> BTreeMap<(&str, &str), Vec<&Row>> {
    let mut measures: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.value.is_some()) {
        let measure = row.case.split_once(':').map_or(row.case.as_str(), |(measure, _)| measure);
        measures.entry((measure, &row.unit)).or_default().push(row);
    }
    measures
}

fn file_name(title: &str) -> String {
    let parts = title.split(|letter: char| !letter.is_ascii_alphanumeric());
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-").to_lowercase()
}

/// Bars from zero; a red mark where a goal of the value itself lies.
fn render(title: &str, rows: &[&Row]) -> String {
    let goal = |row: &Row| row.goal.filter(|_| row.ratio.is_none());
    let values = rows.iter().flat_map(|row| [row.value, goal(row)]).flatten();
    let largest = values.fold(f64::MIN_POSITIVE, f64::max);
    let length = |value: f64| value.max(0.0) / largest * BARS_WIDTH as f64;
    let (width, height) = (LABELS_WIDTH + BARS_WIDTH + VALUES_WIDTH, TOP + rows.len() * BAR_HEIGHT + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    for (index, row) in rows.iter().enumerate() {
        let (y, value) = (TOP + index * BAR_HEIGHT, row.value.unwrap_or_default());
        let label = row.case.split_once(": ").map_or(row.case.as_str(), |(_, label)| label);
        let end = LABELS_WIDTH as f64 + length(value);
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABELS_WIDTH}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"steelblue\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.2}</text>",
            LABELS_WIDTH - 8,
            y + 15,
            escaped(label),
            y + 3,
            length(value),
            BAR_HEIGHT - 6,
            end + 6.0,
            y + 15,
        );
        if let Some(goal) = goal(row) {
            let x = LABELS_WIDTH as f64 + length(goal);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\" stroke=\"red\" stroke-width=\"2\"/>",
                y + BAR_HEIGHT
            );
        }
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_has_a_bar_a_row_and_a_mark_for_its_goal() {
        let rows = [
            Row::at_most("a b: one, p50", 2.0, "ms", None),
            Row::at_most("a b: two <x>", 1.0, "ms", Some(4.0)),
            Row::at_most("a b: three", 1.0, "MB", None),
        ];
        let measures = by_measure(&rows);
        assert_eq!(measures.keys().collect::<Vec<_>>(), [&("a b", "MB"), &("a b", "ms")]);
        let svg = render("a b (ms)", &measures[&("a b", "ms")]);
        assert_eq!(svg.matches("steelblue").count(), 2);
        assert_eq!(svg.matches("<line").count(), 1);
        assert!(svg.contains("width=\"210.0\"") && svg.contains("two &lt;x&gt;"), "{svg}");
        assert_eq!(file_name("connect() of a new socket ns"), "connect-of-a-new-socket-ns");
    }
}
