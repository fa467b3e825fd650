use std::path::PathBuf;

use super::*;

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchboard-chaos-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn begun() -> RunRecord {
    RunRecord::Run {
        seed: 7,
        started: "2026-03-01T12:00:00Z".to_owned(),
        command: "chaos run --seed 7".to_owned(),
        late_after_ms: 5000,
        floors: Floors { acknowledged: 10, ..Floors::default() },
    }
}

fn client_records() -> Vec<ClientRecord> {
    let (session, subscription, conversation) = (1, "mine".to_owned(), 4);
    let client_message_id = "m-1".to_owned();
    let resume = Resume { cursors: vec![Cursor { conversation, seq: 2, epoch: 1 }], user_seq: Some(3) };
    vec![
        ClientRecord::Connected { session, gateway: "http://127.0.0.1:8082".to_owned() },
        ClientRecord::Subscribed {
            session,
            subscription: subscription.clone(),
            conversation: None,
            resume: Some(resume),
        },
        ClientRecord::Resumed {
            session,
            subscription: subscription.clone(),
            conversation,
            after_seq: 2,
            head: 5,
            epoch: 1,
            user_seq: Some(3),
            recovered: true,
            ended: false,
            tier: "log".to_owned(),
            skipped: vec![(3, 4)],
        },
        ClientRecord::Attached { session, subscription: subscription.clone() },
        ClientRecord::Message {
            session,
            subscription: subscription.clone(),
            conversation,
            seq: 5,
            epoch: 1,
            event_type: "MESSAGE".to_owned(),
            event_id: "0197".to_owned(),
            body: digest(b"{}"),
        },
        ClientRecord::Send {
            session,
            conversation,
            client_message_id: client_message_id.clone(),
            text: digest(b"hello"),
        },
        ClientRecord::Unanswered { session, conversation, client_message_id },
        ClientRecord::Unsubscribed { session, subscription, taken_away: false },
        ClientRecord::Disconnected { session, why: "asked".to_owned() },
    ]
}

#[test]
fn what_is_written_is_read_again() {
    let folder = Folder::new("round-trip");
    let clock = Clock::new();
    let run = [
        begun(),
        RunRecord::Membership {
            conversation: 4,
            user: 2,
            change: Change::Left,
            by: 1,
            asked: 5,
            outcome: Outcome::Refused("forbidden".to_owned()),
        },
        RunRecord::Final,
    ];
    let mut writer = Writer::run(&folder.0, clock).unwrap();
    for record in &run {
        writer.record(record).unwrap();
    }
    writer.finish().unwrap();
    for name in ["bob", "alice"] {
        let mut writer = Writer::client(&folder.0, clock, name, 2).unwrap();
        for record in client_records() {
            writer.record_at(17, &record).unwrap();
        }
        writer.finish().unwrap();
    }
    let read = Histories::read(&folder.0).unwrap();
    assert_eq!(read.run.iter().map(|at| at.record.clone()).collect::<Vec<_>>(), run);
    assert!(read.run.is_sorted_by_key(|at| at.at));
    assert_eq!(read.clients.iter().map(|client| client.name.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    let expected: Vec<_> = client_records().into_iter().map(|record| At { at: 17, record }).collect();
    assert_eq!(read.clients[1].records, expected);
}

#[test]
fn a_line_that_is_no_record_is_named() {
    let folder = Folder::new("bad-line");
    let mut writer = Writer::run(&folder.0, Clock::new()).unwrap();
    writer.record(&begun()).unwrap();
    writer.finish().unwrap();
    let clients = clients_folder(&folder.0);
    std::fs::create_dir_all(&clients).unwrap();
    let text = "{\"at\":1,\"record\":\"client\",\"name\":\"bob\",\"user\":2}\n{\"at\":2,\"record\":\"sung\"}\n";
    std::fs::write(clients.join("bob.ndjson"), text).unwrap();
    let error = format!("{:#}", Histories::read(&folder.0).unwrap_err());
    assert!(error.contains("bob.ndjson, line 2") && error.contains("sung"), "{error}");
}

#[test]
fn a_run_never_writes_over_another_and_a_file_name_is_no_path() {
    let folder = Folder::new("twice");
    drop(Writer::run(&folder.0, Clock::new()).unwrap());
    assert!(Writer::run(&folder.0, Clock::new()).is_err());
    assert!(Writer::client(&folder.0, Clock::new(), "../bob", 2).is_err());
}

#[test]
fn digests_are_those_of_fnv() {
    assert_eq!(digest(b""), "cbf29ce484222325");
    assert_eq!(digest(b"a"), "af63dc4c8601ec8c");
    assert_eq!(digest(b"foobar"), "85944171f73967e8");
}
