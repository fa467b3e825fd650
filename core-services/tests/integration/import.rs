//! `core-services import`: what it makes is what the ordinary ways make; twice is once; each refusal names its line.

use std::{io::Write as _, process::Stdio};

use argon2::password_hash::{PasswordHasher as _, SaltString};
use serde_json::{Value, json};

use crate::harness::{Core, id};

/// Runs an import of these lines: whether it succeeded, and its answers.
fn import(core: &Core, lines: &[String]) -> (bool, Vec<Value>) {
    let mut command = core.command();
    command.arg("import").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    let text = lines.join("\n");
    // Answers come while lines still go in.
    let writing = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = process.wait_with_output().unwrap();
    writing.join().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn user(name: &str) -> String {
    json!({ "user": { "username": name, "email": format!("{name}@example.com") } }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_makes_what_the_ordinary_ways_make_and_twice_is_once() {
    let core = Core::start_with(&[("IMPORT__BATCH", "7"), ("CONVERSATIONS__MAX_ADDED", "5")]).await;
    let before = core.register("before").await;
    let salt = SaltString::from_b64("c29tZXNhbHRvcm90aGVy").unwrap();
    let hash = argon2::Argon2::default().hash_password(b"correct horse 1", &salt).unwrap().to_string();
    let mut lines: Vec<String> = (0..20).map(|n| user(&format!("user-{n}"))).collect();
    let with_password = json!({ "username": "Alice", "email": "alice@example.com", "password_hash": hash });
    lines.push(json!({ "user": with_password }).to_string());
    let members: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let channel = json!({ "kind": "channel", "name": "general", "creator": "alice", "members": members });
    lines.push(json!({ "conversation": channel }).to_string());
    lines.push(json!({ "conversation": { "kind": "dm", "creator": "alice", "members": ["before"] } }).to_string());

    let (succeeded, first) = import(&core, &lines);
    assert!(succeeded, "{first:?}");
    assert_eq!(first.len(), lines.len());
    assert!(first.iter().zip(1..).all(|(answer, line)| answer["line"] == line && answer["created"] == true));
    let (succeeded, second) = import(&core, &lines);
    assert!(succeeded, "{second:?}");
    for (first, second) in first.iter().zip(&second) {
        assert_eq!((&first["user_id"], &first["conversation_id"]), (&second["user_id"], &second["conversation_id"]));
        assert_eq!(second["created"], false);
    }

    // A channel with 21 members: the five of its creation, then one USER_JOINED for each of the others.
    let channel = id(&first[21]["conversation_id"]);
    core.assert_whole(channel).await;
    let count = async |query: &'static str| -> i64 { sqlx::query_scalar(query).fetch_one(&core.db).await.unwrap() };
    let head: i64 = sqlx::query_scalar("SELECT last_seq FROM conversations WHERE id = ?")
        .bind(channel)
        .fetch_one(&core.db)
        .await
        .unwrap();
    assert_eq!(head, 1 + 21 - 5);
    assert_eq!(count("SELECT COUNT(*) FROM workspace_members").await, 22);
    assert_eq!(count("SELECT COUNT(*) FROM workspace_members WHERE role = 'owner'").await, 1);
    assert_eq!(count("SELECT COUNT(*) FROM message_producer_outbox WHERE type = 'USER_CREATED'").await, 22);
    assert_eq!(count("SELECT COUNT(*) FROM message_producer_outbox WHERE type = 'MEMBERSHIP_STARTED'").await, 23);

    // With their hash they log in and see both; without one no password fits.
    let login = json!({ "login": "alice", "password": "correct horse 1" });
    let alice = crate::harness::user(&core.post("/auth/login", None, &login).await);
    let (_, mine) = core.call("GET", "/api/v1/conversations", Some(&alice), Value::Null).await;
    assert_eq!(mine["items"].as_array().map(Vec::len), Some(2), "{mine}");
    core.send(&alice, id(&first[22]["conversation_id"]), "m-1", "hello").await.unwrap();
    assert_ne!(before.id, alice.id);
    for password in ["", "correct horse 1"] {
        let login = json!({ "login": "user-1", "password": password });
        assert_eq!(core.call("POST", "/auth/login", None, login).await.0, 401);
    }
    core.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_record_names_its_line_and_the_others_are_written() {
    let core = Core::start_with(&[("CONVERSATIONS__MAX_GROUP_MEMBERS", "2")]).await;
    let group = |creator: &str, members: &[&str]| json!({ "conversation": { "kind": "group", "name": "three", "creator": creator, "members": members } });
    let lines = [
        user("alice"),
        json!({ "user": { "username": "ALICE", "email": "other@example.com" } }).to_string(),
        json!({ "user": { "username": "other", "email": "alice@example.com" } }).to_string(),
        json!({ "user": { "username": "a b", "email": "ab@example.com" } }).to_string(),
        json!({ "user": { "username": "hashed", "email": "h@example.com", "password_hash": "secret" } }).to_string(),
        String::new(),
        "no JSON".to_owned(),
        json!({ "user": { "username": "extra", "email": "e@example.com", "age": 7 } }).to_string(),
        user("bob"),
        user("carol"),
        group("alice", &["nobody"]).to_string(),
        group("alice", &["bob", "carol"]).to_string(),
        json!({ "conversation": { "kind": "channel", "creator": "alice" } }).to_string(),
        group("alice", &["bob"]).to_string(),
    ];
    let (succeeded, answers) = import(&core, &lines);
    assert!(!succeeded);
    let codes: Vec<_> = answers.iter().map(|a| (a["line"].as_u64().unwrap(), a["code"].as_str())).collect();
    let expected = [
        (1, None),
        (2, Some("conflict")),
        (3, Some("conflict")),
        (4, Some("invalid_body")),
        (5, Some("invalid_body")),
        (7, Some("invalid_body")),
        (8, Some("invalid_body")),
        (9, None),
        (10, None),
        (11, Some("not_found")),
        (12, Some("invalid_body")),
        (13, Some("invalid_body")),
        (14, None),
    ];
    assert_eq!(codes, expected, "{answers:#?}");
    core.finish().await;
}
