//! Feeds gateways' Redis streams as the fanout worker would, without anything in front: for what a gateway can do
//! where the rest of the pipeline could not keep up.
//!
//! The seqs go on from the conversation's head, so gateways take the entries for what they look like. Core knows
//! nothing of them: a gateway that compared its heads with core's meanwhile would drop the entries as phantoms, so
//! `hub.compare_interval` must be longer than the run.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use proto::{Keys, StreamEntry, record::Routing, redis_keys::GatewayRef, stream_entry::Scope};
use uuid::Uuid;

use crate::bench::wire;

/// Entries of a stream, as the worker's default.
const MAX_LEN: &str = "10000";
/// The stack's prefix of Redis keys.
const PREFIX: &str = "sb:";
/// How long a question to Redis may take before the run.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One connection to Redis and the state of one conversation.
pub struct Direct {
    redis: TcpStream,
    conversation: i64,
    actor: i64,
    epoch: i64,
    seq: i64,
    streams: Vec<String>,
    out: Vec<u8>,
    answers: Vec<u8>,
    /// XADDs whose answer has not come.
    pub in_flight: usize,
}

impl Direct {
    /// Feeds all gateways that announced interest in the conversation, from its head on.
    ///
    /// # Errors
    /// Redis does not answer, or no gateway has announced itself.
    pub fn new(redis: &str, conversation: i64, actor: i64, (epoch, head): (i64, i64)) -> Result<Self> {
        let gateways = Self::interested(redis, conversation)?;
        ensure!(!gateways.is_empty(), "no gateway has announced interest in the conversation {conversation}");
        let keys = Keys::new(PREFIX);
        let redis = connect(redis)?;
        redis.set_nonblocking(true)?;
        let streams = gateways.iter().map(|gateway| keys.stream(gateway)).collect();
        let (out, answers) = (Vec::new(), Vec::new());
        Ok(Self { redis, conversation, actor, epoch, seq: head, streams, out, answers, in_flight: 0 })
    }

    /// The gateways that announced interest in a conversation, without those that are gone: a worker forgets them
    /// when it next has something for them.
    pub fn interested(redis: &str, conversation: i64) -> Result<Vec<GatewayRef>> {
        let (mut redis, keys) = (connect(redis)?, Keys::new(PREFIX));
        let members = ask(&mut redis, &["SMEMBERS", &keys.conversation_interest(conversation)], array)?;
        let mut alive = Vec::new();
        for member in members {
            let gateway: GatewayRef = member.parse()?;
            if ask(&mut redis, &["EXISTS", &keys.lease(&gateway)], integer)? > 0 {
                alive.push(gateway);
            }
        }
        Ok(alive)
    }

    /// Appends one stamped MESSAGE to each stream.
    pub fn send(&mut self, stamp: u64, size: usize) -> Result<()> {
        self.seq += 1;
        let (conversation, seq, id) = (self.conversation, self.seq, Uuid::now_v7());
        let mut text = Vec::with_capacity(size);
        wire::put_stamp(&mut text, stamp);
        text.resize(size.max(text.len()), b'x');
        let text = String::from_utf8(text).expect("a stamp is ASCII");
        let now = chrono::Utc::now();
        let payload = format!(
            r#"{{"type":"MESSAGE","event_id":"{id}","epoch":{epoch},"conversation_id":"{conversation}","seq":{seq},"actor_id":"{actor}","at":"{at}","data":{{"message_id":"{seq}","message_no":{seq},"kind":"text","body":"{text}","client_message_id":"{id}","thread_root_id":null,"mentions":[],"attachments":[],"deleted":false}}}}"#,
            epoch = self.epoch,
            actor = self.actor,
            at = now.format("%Y-%m-%dT%H:%M:%S%.6fZ"),
        );
        let routing = Routing {
            event_id: id.to_string(),
            event_type: "MESSAGE".to_owned(),
            epoch: self.epoch,
            conversation_id: Some(conversation),
            seq: Some(seq),
            actor_id: Some(self.actor),
            ..Routing::default()
        };
        let entry = StreamEntry {
            scope: Scope::Conversation,
            key: conversation,
            routing,
            payload: payload.into(),
            kafka_ms: now.timestamp_millis(),
            worker_us: now.timestamp_micros(),
        };
        for stream in &self.streams {
            let mut command: Vec<Vec<u8>> =
                ["XADD", stream, "NOMKSTREAM", "MAXLEN", "~", MAX_LEN, "*"].map(|part| part.into()).into();
            entry.encode(|name, value| command.extend([name.into(), value.to_vec()]));
            put_command(&mut self.out, &command);
            self.in_flight += 1;
        }
        self.pump()
    }

    /// Writes what waits and takes the answers that are there.
    ///
    /// # Errors
    /// Redis refused an entry, or a stream is gone: its gateway has taken a new incarnation.
    pub fn pump(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.redis.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("writing to Redis"),
            }
        }
        let mut part = [0; 4096];
        loop {
            match self.redis.read(&mut part) {
                Ok(0) => bail!("Redis closed the connection"),
                Ok(read) => self.answers.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading from Redis"),
            }
        }
        while let Some((answer, len)) = bulk(&self.answers)? {
            ensure!(answer.is_some(), "a gateway's stream is gone: it has taken a new incarnation");
            self.answers.drain(..len);
            self.in_flight -= 1;
        }
        Ok(())
    }
}

fn connect(url: &str) -> Result<TcpStream> {
    let address = url.strip_prefix("redis://").unwrap_or(url);
    let redis = TcpStream::connect(address).with_context(|| format!("connecting to Redis at {address}"))?;
    redis.set_nodelay(true)?;
    redis.set_read_timeout(Some(TIMEOUT))?;
    Ok(redis)
}

/// Sends one command and waits for its answer.
fn ask<T>(redis: &mut TcpStream, parts: &[&str], read: impl Fn(&[u8]) -> Result<Option<T>>) -> Result<T> {
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
    let mut question = Vec::new();
    put_command(&mut question, &parts);
    redis.write_all(&question)?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let len = redis.read(&mut part).context("reading from Redis")?;
        ensure!(len > 0, "Redis closed the connection");
        answer.extend_from_slice(&part[..len]);
        if let Some(answer) = read(&answer)? {
            return Ok(answer);
        }
    }
}

fn put_command(out: &mut Vec<u8>, parts: &[Vec<u8>]) {
    write!(out, "*{}\r\n", parts.len()).expect("a Vec takes all");
    for part in parts {
        write!(out, "${}\r\n", part.len()).expect("a Vec takes all");
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// A line without its end, and what it takes; `None` while it is incomplete.
fn line(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n")?;
    Some((str::from_utf8(&bytes[..end]).unwrap_or("?"), end + 2))
}

/// A bulk string (`None`: the null one) and what it takes; `None` while it is incomplete.
fn bulk(bytes: &[u8]) -> Result<Option<(Option<&str>, usize)>> {
    let Some((head, at)) = line(bytes) else { return Ok(None) };
    if head == "$-1" || head == "_" {
        return Ok(Some((None, at)));
    }
    let Some(len) = head.strip_prefix('$').and_then(|len| len.parse::<usize>().ok()) else {
        bail!("Redis answered {head}");
    };
    let Some(value) = bytes.get(at..at + len).filter(|_| bytes.len() >= at + len + 2) else { return Ok(None) };
    Ok(Some((Some(str::from_utf8(value).unwrap_or("?")), at + len + 2)))
}

/// A whole number.
fn integer(bytes: &[u8]) -> Result<Option<i64>> {
    let Some((head, _)) = line(bytes) else { return Ok(None) };
    let number = head.strip_prefix(':').and_then(|number| number.parse().ok());
    Ok(Some(number.with_context(|| format!("Redis answered {head}"))?))
}

/// An array of bulk strings.
fn array(bytes: &[u8]) -> Result<Option<Vec<String>>> {
    let Some((head, mut at)) = line(bytes) else { return Ok(None) };
    let Some(count) = head.strip_prefix('*').and_then(|count| count.parse::<usize>().ok()) else {
        bail!("Redis answered {head}");
    };
    let mut members = Vec::new();
    for _ in 0..count {
        let Some((member, len)) = bulk(&bytes[at..])? else { return Ok(None) };
        members.extend(member.map(str::to_owned));
        at += len;
    }
    Ok(Some(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_once_they_are_whole_and_refusals_are_told() {
        let whole = b"*2\r\n$1\r\na\r\n$3\r\nb:c\r\n";
        for part in 0..whole.len() {
            assert_eq!(array(&whole[..part]).unwrap(), None);
        }
        assert_eq!(array(whole).unwrap().unwrap(), ["a", "b:c"]);
        assert_eq!((integer(b":1").unwrap(), integer(b":1\r\n").unwrap()), (None, Some(1)));
        assert_eq!(bulk(b"$-1\r\n").unwrap(), Some((None, 5)));
        assert!(bulk(b"-OOM command not allowed\r\n").unwrap_err().to_string().contains("OOM"));
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        put_command(&mut out, &["GET".into(), "k".into()]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
