//! The binary: exit codes and signals.

use chassis::http::get_json;
use serde_json::Value;

use crate::bed::{Bed, binary, eventually, signal};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_exits_with_0() {
    let bed = Bed::new().await;
    let settings = bed.settings();
    let admin = &settings["SWITCHBOARD__ADMIN__LISTEN"];
    let mut child = binary(&settings).spawn().unwrap();
    eventually("the worker has all partitions", || async {
        let partitions: Value = get_json(&format!("http://{admin}/partitions")).await.ok()?;
        (partitions["items"].as_array()?.len() == 12).then_some(())
    })
    .await;
    signal(&child, "TERM").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    bed.remove().await;
}

#[tokio::test]
async fn a_bad_configuration_exits_with_64_and_names_the_keys() {
    let settings = [("SWITCHBOARD__KAFKA__DRAIN_DEADLINE", "1h")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let output = binary(&settings.into()).arg("--check-config").stderr(std::process::Stdio::piped()).output().await;
    let output = output.unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{message}");
    assert!(message.contains("kafka.drain_deadline"), "{message}");
}
