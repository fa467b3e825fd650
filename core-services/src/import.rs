//! `core-services import`: many people and conversations at once, for an operator who moves in or sets up a test.
//!
//! Records come as NDJSON on standard input, one answer a record goes to standard output, in the same order. It writes
//! the same rows and events as the ordinary ways do; users in transactions of `import.batch`, a conversation in those
//! of a creation and of additions by its creator. What is there already stays as it is, so an import that was cut
//! short is simply run again. A command and no endpoint on purpose: it needs the database's password, so nobody gets
//! at it through a listener.

mod conversations;
mod record;
mod users;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use chassis::Process;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tracing::info;

use crate::{
    config::Config,
    conversation::Conversations,
    db::Db,
    error::{Error, Refusal},
    node_lease,
    snowflake::Snowflakes,
};
use record::{Answer, Outcome, Record};

/// Runs the import to the end of standard input. Fails when a record was refused, after the others were written.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let db = Db::new(&config.mysql)?;
    let ids = Arc::new(Snowflakes::default());
    let lease = node_lease::keep(
        db.clone(),
        Arc::clone(&ids),
        config.ids.lease,
        process.readiness.dependency("node_id"),
        process.lifecycle.draining(),
    );
    process.lifecycle.spawn("node lease", lease);
    ids.leased(config.mysql.acquire_timeout + config.mysql.session_timeout).await.context("is MySQL there?")?;

    let conversations = Conversations { db: db.clone(), ids: Arc::clone(&ids), limits: config.conversations.clone() };
    let mut import = Import {
        db,
        ids,
        conversations,
        batch: config.import.batch,
        waiting: Vec::new(),
        out: BufWriter::new(tokio::io::stdout()),
        written: 0,
        refused: 0,
    };
    let draining = process.lifecycle.draining();
    let mut input = BufReader::new(tokio::io::stdin());
    let mut number = 0;
    loop {
        let line = tokio::select! {
            line = next_line(&mut input, config.import.max_line) => {
                line.with_context(|| format!("line {}", number + 1))?
            }
            () = draining.cancelled() => bail!("interrupted behind line {number}; run it again to finish"),
        };
        let Some(line) = line else { break };
        number += 1;
        if !line.trim_ascii().is_empty() {
            import.take(number, &line).await.with_context(|| format!("line {number}"))?;
        }
    }
    import.flush_users().await.with_context(|| format!("the users up to line {number}"))?;
    info!(records = import.written, refused = import.refused, "imported");
    if import.refused > 0 {
        bail!("{} of {} records were refused; each says why", import.refused, import.written);
    }
    Ok(())
}

/// The next line without its end; `None` at the end of the input.
async fn next_line(input: &mut (impl AsyncBufRead + Unpin), max: usize) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // One byte more than a line may have tells a long one from one that just fits.
    let read = input.take(max as u64 + 1).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > max {
        bail!("longer than import.max_line, {max} bytes");
    }
    Ok(Some(line))
}

struct Import {
    db: Db,
    ids: Arc<Snowflakes>,
    conversations: Conversations,
    batch: usize,
    /// Lines of users that wait for their transaction, in order.
    waiting: Vec<users::Waiting>,
    out: BufWriter<tokio::io::Stdout>,
    written: u64,
    refused: u64,
}

impl Import {
    /// An error ends the import; what is wrong with the record itself is its answer.
    async fn take(&mut self, line: u64, text: &[u8]) -> anyhow::Result<()> {
        match record::parse(text) {
            Ok(Record::User(user)) => {
                let new = users::prepare(user, &self.ids);
                self.waiting.push(users::Waiting { line, new: refusal_of(new)? });
                if self.waiting.len() >= self.batch {
                    self.flush_users().await?;
                }
            }
            Ok(Record::Conversation(conversation)) => {
                // Its members may be among those who wait.
                self.flush_users().await?;
                let outcome = conversations::write(&self.conversations, conversation, self.batch).await;
                self.answer(line, refusal_of(outcome)?).await?;
                self.out.flush().await?;
            }
            Err(refusal) => {
                self.flush_users().await?;
                self.answer(line, Err(refusal)).await?;
            }
        }
        Ok(())
    }

    async fn flush_users(&mut self) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        for (line, outcome) in users::write(&self.db, waiting).await? {
            self.answer(line, outcome).await?;
        }
        self.out.flush().await.context("standard output")
    }

    async fn answer(&mut self, line: u64, outcome: Result<Outcome, Refusal>) -> anyhow::Result<()> {
        self.written += 1;
        self.refused += u64::from(outcome.is_err());
        let mut text = serde_json::to_vec(&Answer::new(line, outcome))?;
        text.push(b'\n');
        self.out.write_all(&text).await.context("standard output")
    }
}

/// Refusals are answers; the rest ends the import.
fn refusal_of<T>(outcome: Result<T, Error>) -> anyhow::Result<Result<T, Refusal>> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(Error::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_may_be_as_long_as_the_limit_and_not_longer() {
        let mut input = &b"1234\n12345\r\n\n123"[..];
        assert_eq!(next_line(&mut input, 4).await.unwrap().unwrap(), b"1234");
        assert!(next_line(&mut input, 4).await.is_err());
        let mut input = &b"\n123"[..];
        assert_eq!(next_line(&mut input, 4).await.unwrap().unwrap(), b"");
        assert_eq!(next_line(&mut input, 4).await.unwrap().unwrap(), b"123");
        assert_eq!(next_line(&mut input, 4).await.unwrap(), None);
    }
}
