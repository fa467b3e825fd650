//! What judges shares no code with what is judged.

use std::{fs, path::Path};

/// What reads histories and judges them: a file, or a folder of them.
const JUDGES: [&str; 7] =
    ["checker.rs", "checker", "history.rs", "history", "verdict.rs", "verdict", "truth/stored.rs"];
/// The services, their contract, and the clients that write the histories.
const JUDGED: [&str; 8] = [
    "core_services::",
    "socket_gateway::",
    "fanout_worker::",
    "chassis::",
    "proto::",
    "e2e::",
    "crate::workload",
    "crate::faults",
];

#[test]
fn the_checker_uses_nothing_of_the_services_nor_of_the_clients() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    for judge in JUDGES {
        let judge = source.join(judge);
        let folder = fs::read_dir(&judge).map(|folder| folder.map(|entry| entry.unwrap().path()).collect());
        for file in folder.unwrap_or_else(|_| vec![judge]).iter().filter(|path| path.is_file()) {
            let text = fs::read_to_string(file).unwrap();
            for name in JUDGED {
                assert!(!text.contains(name), "{} uses {name}", file.display());
            }
            files += 1;
        }
    }
    assert!(files > 20, "only {files} files were looked at");
}
