//! `docs/model.md` says of every step of the model what it stands for. This holds it against both sides: the model's
//! steps, and the sources.

use std::{collections::BTreeMap, fs, path::Path};

use model::setups;

const DOC: &str = include_str!("../../docs/model.md");
const ACTIONS: &str = include_str!("../src/action.rs");

/// The names of the variants of `Action`.
fn actions() -> Vec<&'static str> {
    let (_, variants) = ACTIONS.split_once("pub enum Action {").expect("the enum of steps");
    let (variants, _) = variants.split_once("\n}").expect("its end");
    let name = |line: &'static str| line.trim().split([' ', ',']).next().filter(|name| !name.is_empty());
    variants.lines().filter_map(name).filter(|name| name.starts_with(char::is_uppercase)).collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Targets of links.
fn links(cell: &str) -> Vec<&str> {
    cell.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// Step, files, and what must be in one of them.
fn rows() -> Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)> {
    let (_, table) = DOC.split_once("| step | file | function or setting |").expect("the table of steps");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        quoted(cells[0]).into_iter().map(move |step| (step, links(cells[1]), quoted(cells[2]))).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn every_step_of_the_model_stands_in_the_table_once() {
    let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
    for (step, ..) in rows() {
        *steps.entry(step).or_default() += 1;
    }
    let expected: BTreeMap<&str, usize> = actions().into_iter().map(|action| (action, 1)).collect();
    assert!(expected.len() > 40, "{expected:?}");
    assert_eq!(steps, expected);
}

#[test]
fn every_function_that_a_step_stands_for_is_where_the_table_says() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for (step, files, names) in rows() {
        assert!(!files.is_empty() && !names.is_empty(), "{step}: no file, or nothing in it");
        let sources: Vec<String> = files
            .iter()
            .map(|file| fs::read_to_string(docs.join(file)).unwrap_or_else(|error| panic!("{step}: {file}: {error}")))
            .collect();
        for name in names {
            let is_there = |source: &String| {
                source.contains(&format!("fn {name}(")) || source.contains(&format!("fn {name}<"))
                    // Settings, and texts of commands, are no plain names.
                    || (name.contains(['=', ' ', '.', '"']) && source.contains(name))
            };
            assert!(sources.iter().any(is_there), "{step}: {name} is not in {files:?}");
        }
    }
}

#[test]
fn every_system_and_every_seeded_bug_is_described() {
    for setup in setups::all() {
        assert!(DOC.contains(&format!("| `{}` |", setup.name)), "{} is not described", setup.name);
    }
    for (bug, setup, _) in setups::seeded() {
        let row = DOC.lines().find(|line| line.starts_with(&format!("| `{bug:?}` |")));
        let row = row.unwrap_or_else(|| panic!("{bug:?} is not described"));
        assert!(row.contains(&format!("`{}`", setup.name)), "{bug:?} is shown in {}", setup.name);
    }
}
