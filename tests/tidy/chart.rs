//! The page of the chart shows every value, as values.yaml has it.

use super::source::root;
use std::fs;

/// A value of values.yaml that has a comment, with its default.
struct Row {
    path: String,
    default: String,
    meaning: String,
}

/// The values with a comment right above. What lies deeper than such a value is its default, and no row.
fn rows(values: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut folders: Vec<(usize, &str)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut inside: Option<usize> = None;
    for line in values.lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if inside.is_some_and(|above| depth > above) && !text.is_empty() {
            continue;
        }
        inside = None;
        if let Some(said) = text.strip_prefix('#') {
            comment.push(said.trim());
            continue;
        }
        let Some((key, default)) = text.split_once(':') else {
            comment.clear();
            continue;
        };
        folders.retain(|(above, _)| *above < depth);
        if comment.is_empty() {
            folders.push((depth, key));
            continue;
        }
        let names = folders.iter().map(|(_, name)| *name).chain([key]);
        let default = default.trim();
        rows.push(Row {
            path: names.collect::<Vec<_>>().join("."),
            default: if default.is_empty() { "see values.yaml".to_owned() } else { format!("`{default}`") },
            meaning: std::mem::take(&mut comment).join(" "),
        });
        inside = Some(depth);
    }
    rows
}

#[test]
fn the_page_of_the_chart_shows_every_value() {
    let chart = root().join("deploy/helm/spot-guard");
    let values = fs::read_to_string(chart.join("values.yaml")).expect("the values");
    let page = chart.join("README.md");
    let text = fs::read_to_string(&page).expect("the page");
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for Row { path, default, meaning } in rows(&values) {
        table += &format!("| `{path}` | {default} | {meaning} |\n");
    }
    assert!(table.lines().count() > 30, "the values were not understood:\n{table}");
    if std::env::var_os("UPDATE_CHART").is_some() {
        let (before, _) = text.split_once("| value |").expect("the table of values comes last");
        fs::write(&page, format!("{before}{table}")).expect("the page is written");
        return;
    }
    assert!(text.ends_with(&table), "run with UPDATE_CHART=1: {} lacks this table:\n{table}", page.display());
}
