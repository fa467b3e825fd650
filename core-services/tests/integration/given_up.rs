//! Requests that are given up while MySQL works on them, and statements that MySQL leaves unanswered.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use core_services::{config, db::Db};
use futures_util::poll;

use crate::harness::{Core, run};

/// More looks at a transaction than it takes to its end.
const LOOKS: u32 = 400;

fn with_one_session(url: String, response_timeout: Duration) -> Db {
    Db::new(&config::MySql {
        url,
        password_file: None,
        max_connections: 1,
        acquire_timeout: Duration::from_secs(20),
        session_timeout: Duration::from_secs(20),
        lock_wait_timeout: Duration::from_secs(5),
        response_timeout,
    })
    .unwrap()
}

#[tokio::test]
async fn whatever_is_given_up_leaves_a_session_on_which_the_next_one_can_rely() {
    let core = Core::start().await;
    run(&core.db, "CREATE TABLE given_up (n INT PRIMARY KEY)").await;
    // All on one session, while it is not closed.
    let db = with_one_session(core.mysql.clone(), Duration::from_secs(20));
    let (mut ended, mut given_up_at_work) = (0, 0);
    for looks in 0..LOOKS {
        {
            let mut given_up = pin!(db.transact("test", |tx| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO given_up VALUES (-1)").execute(&mut *tx).await?;
                    sqlx::query("DELETE FROM given_up WHERE n < 0").execute(tx).await?;
                    Ok(())
                })
            }));
            let mut is_ready = false;
            for _ in 0..looks {
                is_ready = poll!(&mut given_up).is_ready();
                if is_ready {
                    break;
                }
                tokio::task::yield_now().await;
            }
            ended += u32::from(is_ready);
            given_up_at_work += u32::from(!is_ready && looks > 0);
        }
        {
            let mut given_up = pin!(sqlx::query_scalar::<_, i64>("SELECT n FROM given_up").fetch_all(&db));
            for _ in 0..looks {
                if poll!(&mut given_up).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        sqlx::query("INSERT INTO given_up VALUES (?)").bind(looks).execute(&db).await.unwrap();
        let stored = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM given_up WHERE n = ?").bind(looks);
        let stored = stored.fetch_one(&core.db).await.unwrap();
        assert_eq!(stored, 1, "answered, but within the transaction of one that was given up after {looks} looks");
    }
    assert!(ended > 0 && given_up_at_work > 10, "{ended} came to their end, {given_up_at_work} were given up at work");
    core.finish().await;
}

#[tokio::test]
async fn a_statement_that_is_left_unanswered_ends_in_time_and_the_next_one_has_another_session() {
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
    let core = Core::start().await;
    let db = with_one_session(core.mysql.clone(), RESPONSE_TIMEOUT);
    let ask = |query| sqlx::query_scalar::<_, i64>(query).fetch_one(&db);
    let began = Instant::now();
    let unanswered = ask("SELECT 1 + SLEEP(60)").await.unwrap_err();
    assert!(
        matches!(&unanswered, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut),
        "{unanswered}"
    );
    assert_eq!(ask("SELECT 2").await.unwrap(), 2);
    let took = began.elapsed();
    assert!((RESPONSE_TIMEOUT..RESPONSE_TIMEOUT * 20).contains(&took), "{took:?}");
    core.finish().await;
}
