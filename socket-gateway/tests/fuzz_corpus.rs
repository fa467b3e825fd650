//! What the fuzz targets have found worth keeping, and each input that has failed once, replayed: see `fuzz/README.md`.

use std::{fs, path::Path};

#[path = "../fuzz/src/lib.rs"]
mod oracles;

/// Runs all inputs of a folder; says of how many targets there were any.
fn replay(folder: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let mut targets = 0;
    for (target, run) in oracles::TARGETS {
        let Ok(entries) = fs::read_dir(root.join(target)) else { continue };
        let mut files: Vec<_> = entries.map(|entry| entry.expect("the folder is read").path()).collect();
        files.sort();
        targets += usize::from(!files.is_empty());
        for file in files {
            // Named before it is run: the last one is the one that failed.
            println!("{}", file.display());
            run(&fs::read(&file).expect("the file is read"));
        }
    }
    targets
}

#[test]
fn every_seed_holds_to_what_the_fuzz_targets_check() {
    assert_eq!(replay("seeds"), oracles::TARGETS.len());
}

#[test]
fn every_input_of_the_corpus_holds_to_what_the_fuzz_targets_check() {
    assert_eq!(replay("corpus"), oracles::TARGETS.len());
}

#[test]
fn no_input_that_has_failed_once_fails_again() {
    assert!(replay("past") > 0);
}
