//! Records that can't be routed.

use proto::topics::header::{CONVERSATION_ID, EPOCH, EVENT_TYPE, ID, SEQ, dlq};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};

use crate::{
    bed::{Bed, Worker},
    gateway::Gateway,
};

fn header<'a>(letter: &'a OwnedMessage, name: &str) -> Option<&'a str> {
    let header = letter.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_becomes_a_dead_letter_and_its_partition_goes_on() {
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    gateway.serve_conversation(1).await;
    let worker = Worker::start(bed.settings());
    worker.is_ready().await;

    bed.message(1, 1).await;
    let headers = [(ID, "x"), (EVENT_TYPE, "MESSAGE"), (EPOCH, "1"), (CONVERSATION_ID, "1"), (SEQ, "seven")];
    let (partition, offset) = bed.produce("messages", Some("1"), &headers, Some(b"\xff{ no json")).await;
    bed.message(1, 2).await;
    gateway.has_all(1, 2).await;

    let letters = bed.dead_letters(1).await;
    let letter = &letters[0];
    assert_eq!((letter.key(), letter.payload()), (Some(&b"1"[..]), Some(&b"\xff{ no json"[..])));
    assert_eq!(header(letter, SEQ), Some("seven"), "the original headers are kept");
    assert_eq!(header(letter, dlq::TOPIC), Some(&*bed.topic("messages")));
    assert_eq!(header(letter, dlq::PARTITION), Some(&*partition.to_string()));
    assert_eq!(header(letter, dlq::OFFSET), Some(&*offset.to_string()));
    assert_eq!(header(letter, dlq::REASON), Some("bad_header"));
    assert!(header(letter, dlq::ERROR).unwrap().contains("seven"));
    assert!(header(letter, dlq::AT).unwrap().ends_with('Z'));
    worker.stop().await;
    assert_eq!(bed.committed("messages").await, 3);
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_record_has_its_reason() {
    let bed = Bed::new().await;
    let mut settings = bed.settings();
    settings.insert("SWITCHBOARD__BATCH__MAX_RECORD_BYTES".to_owned(), "2KiB".to_owned());
    let worker = Worker::start(settings);
    let good = [(ID, "x"), (EVENT_TYPE, "MESSAGE"), (EPOCH, "1"), (CONVERSATION_ID, "1"), (SEQ, "7")];
    bed.produce("messages", None, &good, Some(b"{}")).await;
    bed.produce("messages", Some("general"), &good, Some(b"{}")).await;
    bed.produce("messages", Some("2"), &good, Some(b"{}")).await;
    bed.produce("messages", Some("1"), &good, None).await;
    bed.produce("messages", Some("1"), &[], Some(b"{}")).await;
    bed.produce("users", Some("1"), &good, Some(&[b'x'; 4096])).await;

    let letters = bed.dead_letters(6).await;
    let mut reasons: Vec<_> = letters.iter().filter_map(|letter| header(letter, dlq::REASON)).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["bad_key", "bad_key", "key_mismatch", "missing_header", "no_payload", "too_large"]);
    worker.stop().await;
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_key_that_is_no_id_holds_nothing_up() {
    const CONVERSATIONS: i64 = 16;
    let bed = Bed::new().await;
    let gateway = Gateway::start(&bed, "gateway").await;
    let worker = Worker::start(bed.settings());
    worker.is_ready().await;
    let key = "k".repeat(600 << 10);
    bed.produce("messages", Some(&key), &[(ID, "x")], Some(b"{}")).await;
    // Some of them stand behind it in its partition.
    for conversation in 1..=CONVERSATIONS {
        gateway.serve_conversation(conversation).await;
        bed.message(conversation, 1).await;
    }
    for conversation in 1..=CONVERSATIONS {
        gateway.has_all(conversation, 1).await;
    }
    let letters = bed.dead_letters(1).await;
    assert_eq!((letters[0].key(), letters[0].payload()), (Some(key.as_bytes()), Some(&b"{}"[..])));
    assert_eq!(header(&letters[0], dlq::REASON), Some("bad_key"));
    assert!(header(&letters[0], dlq::ERROR).unwrap().len() <= 1024);
    worker.stop().await;
    assert_eq!(bed.committed("messages").await, CONVERSATIONS + 1);
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_larger_than_its_topic_allows_goes_without_its_value() {
    let bed = Bed::new().await;
    bed.limit_dead_letters(2000).await;
    let worker = Worker::start(bed.settings());
    bed.produce("messages", Some("1"), &[(ID, "x")], Some(&[b'x'; 4000])).await;
    let letters = bed.dead_letters(1).await;
    assert_eq!((letters[0].key(), letters[0].payload()), (Some(&b"1"[..]), None));
    assert_eq!(header(&letters[0], dlq::REASON), Some("missing_header"));
    assert_eq!((header(&letters[0], ID), header(&letters[0], dlq::OMITTED)), (Some("x"), Some("value")));
    worker.stop().await;
    bed.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_still_too_large_goes_without_headers_and_key_as_well() {
    let bed = Bed::new().await;
    bed.limit_dead_letters(2000).await;
    let worker = Worker::start(bed.settings());
    let long = "x".repeat(4000);
    let (partition, offset) = bed.produce("messages", Some(&long), &[(ID, &long)], Some(long.as_bytes())).await;
    let letters = bed.dead_letters(1).await;
    let letter = &letters[0];
    assert_eq!((letter.key(), letter.payload(), header(letter, ID)), (None, None, None));
    assert_eq!(header(letter, dlq::OMITTED), Some("value,headers,key"));
    assert_eq!(header(letter, dlq::PARTITION), Some(&*partition.to_string()));
    assert_eq!(header(letter, dlq::OFFSET), Some(&*offset.to_string()));
    worker.stop().await;
    assert_eq!(bed.committed("messages").await, 1);
    bed.remove().await;
}
