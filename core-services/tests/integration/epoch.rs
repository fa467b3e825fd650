//! `core-services epoch`: raised once, never beside a core that may be writing, and in everything written afterwards.

use std::process::Output;

use tokio::time::{Instant, sleep};

use crate::harness::{Core, DEADLINE, POLL};

fn epoch(core: &Core, arguments: &[&str]) -> Output {
    core.command().arg("epoch").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn an_epoch_is_raised_once_not_beside_a_core_and_is_in_everything_written_afterwards() {
    let mut core = Core::start_with(&[("IDS__LEASE", "5s")]).await;
    let alice = core.register("alice").await;
    let channel = core.channel(&alice).await;
    assert_eq!(core.send(&alice, channel, "m-1", "hello").await.unwrap().epoch, 1);

    let raise = ["raise", "--reason", "restored the backup of yesterday", "--from", "1"];
    let refused = epoch(&core, &raise);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("node id 0 is leased until"), "{refused:?}");
    assert!(core.terminate().await.success());
    // The lease of a core that has gone runs out.
    let deadline = Instant::now() + DEADLINE;
    let raised = loop {
        let raised = epoch(&core, &raise);
        if raised.status.success() {
            break raised;
        }
        assert!(text(&raised.stderr).contains("is leased until") && Instant::now() < deadline, "{raised:?}");
        sleep(POLL).await;
    };
    let (now, stored) = (chassis::now_us() / 1_000_000, stored(&core).await);
    assert!(
        (now - 60..=now).contains(&stored),
        "{stored} is not the time, {now}: an epoch that a backup can't know of"
    );
    assert!(text(&raised.stdout).contains(&format!("the epoch is {stored}, it was 1")), "{raised:?}");

    let again = epoch(&core, &raise);
    assert!(text(&again.stderr).contains(&format!("the epoch is {stored}, not 1")), "{again:?}");
    let from = stored.to_string();
    let empty = epoch(&core, &["raise", "--reason", " ", "--from", &from]);
    assert!(text(&empty.stderr).contains("--reason"), "{empty:?}");
    let unsure = epoch(&core, &["raise", "--from", &from]);
    assert_eq!(unsure.status.code(), Some(64), "{unsure:?}");
    assert_eq!(self::stored(&core).await, stored);

    core.restart().await;
    let sent = core.send(&alice, channel, "m-2", "hello").await.unwrap();
    assert_eq!((sent.epoch, sent.seq), (stored, 3));
    let rows: Vec<i64> =
        sqlx::query_scalar("SELECT epoch FROM message_producer_outbox WHERE conversation_id = ? ORDER BY seq")
            .bind(channel)
            .fetch_all(&core.db)
            .await
            .unwrap();
    assert_eq!(rows, [1, 1, stored]);
    let forced = epoch(&core, &["raise", "--reason", "again", "--from", &from, "--while-cores-write"]);
    assert!(forced.status.success(), "{forced:?}");
    assert!(self::stored(&core).await > stored);
    let shown = text(&epoch(&core, &["show"]).stdout);
    assert!(shown.contains("restored the backup of yesterday") && shown.contains("installed"), "{shown}");
    assert!(
        shown.contains("node id") && shown.contains(&format!("the epoch is {}", self::stored(&core).await)),
        "{shown}"
    );
    core.finish().await;
}

async fn stored(core: &Core) -> i64 {
    sqlx::query_scalar("SELECT epoch FROM cluster_state").fetch_one(&core.db).await.unwrap()
}
