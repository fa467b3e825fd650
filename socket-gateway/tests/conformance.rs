//! `docs/stomp-conformance.md` names tests that exist.

use std::{fs, io, path::Path};

fn sources(folder: &Path, out: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_test_that_the_conformance_table_names_exists() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    sources(&root.join("socket-gateway/src"), &mut code)?;
    sources(&root.join("e2e/tests"), &mut code)?;
    let table = fs::read_to_string(root.join("docs/stomp-conformance.md"))?;
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| | "));
    let mut named = 0;
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        for test in tests.split(", ").map(|test| test.trim_matches('`')) {
            assert!(code.contains(&format!("fn {test}(")), "no test {test}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
    Ok(())
}
