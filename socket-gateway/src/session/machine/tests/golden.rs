//! What this server writes, byte for byte, in each version.

use std::fmt::Write as _;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/stomp.txt");

/// An id with what each version writes in another way.
const ID: &str = "a:b\\c";

fn transcript(version: Version) -> String {
    let mut out = String::new();
    let mut add = |what: &str, outputs: &[Output]| {
        for frame in written(outputs) {
            let _ = writeln!(out, "# STOMP {}: {what}\n{}", version.as_str(), frame.replace('\0', "^@"));
        }
    };
    let id = if version == Version::V1_0 { ID.to_owned() } else { ID.replace('\\', "\\\\").replace(':', "\\c") };

    add("no common version", &Driven::new().frame("CONNECT\naccept-version:9.9\npasscode:t\n\n\0"));
    let mut session = Driven::new();
    session.frame(&format!("CONNECT\naccept-version:{}\npasscode:t\n\n\0", version.as_str()));
    add("the answer to CONNECT", &session.input(Input::Verified(Ok(verified(5)))));
    let subscribe = "SUBSCRIBE\ndestination:/user/queue/errors\n";
    add("the receipt of a SUBSCRIBE", &session.frame(&format!("{subscribe}id:{id}\nreceipt:{id}\n\n\0")));
    let outputs = session.frame(&SEND.replace("receipt:r", &format!("receipt:{id}")));
    let no = submitted(&outputs)[0];
    add("the receipt of a SEND", &session.event(Event::Sent { conversation: 7, no, result: created(12) }));
    add("a refusal", &session.frame(&format!("SEND\ndestination:/app/token\nreceipt:{id}\n\nno JSON\0")));
    for mode in ["auto", "client"] {
        let frame = format!("SUBSCRIBE\nid:{mode}\ndestination:/topic/conversations/7\nack:{mode}\n\n\0");
        let outputs = session.frame(&frame);
        let [Output::Attach { head, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        let tail = "message-id:7-12\ncontent-type:application/json\nevent-type:MESSAGE\nevent-id:0197\n\
                    conversation-id:7\nseq:12\nepoch:1\ncontent-length:2\n\n{}\0";
        add(&format!("a message with ack:{mode}"), &[Output::Write(head.frame("", tail))]);
    }
    add("a breach of the protocol", &session.frame(&format!("COMMIT\ntransaction:t\nreceipt:{id}\n\n\0")));
    out.replace(env!("CARGO_PKG_VERSION"), "<version>")
}

/// To take what is written now: `SWITCHBOARD_BLESS=1 cargo test -p socket-gateway golden`, and look at the difference.
#[tokio::test(start_paused = true)]
async fn the_frames_of_each_version_are_those_of_the_golden_file() {
    let now: String = [Version::V1_0, Version::V1_1, Version::V1_2].map(transcript).concat();
    if std::env::var_os("SWITCHBOARD_BLESS").is_some() {
        std::fs::write(GOLDEN, &now).unwrap();
    }
    assert_eq!(std::fs::read_to_string(GOLDEN).unwrap(), now);
}
