//! A request that receives: frames of its session as the bytes of its answer.
//!
//! The answer is over after one frame (polling) or after so many bytes (streaming, for browsers keep all of an answer).
//! Dropped before that, the client is gone.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    framing::{self, Framing, HEARTBEAT, OPEN},
    session::{Session, Told},
};

/// What one request that receives may.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a streaming answer, after which it ends, and of one frame.
    pub response: usize,
    /// So long after the last frame the next heart-beat is sent.
    pub heartbeat: Duration,
}

#[derive(Debug)]
pub struct Receiver {
    session: Arc<Session>,
    framing: Framing,
    limits: Limits,
    heartbeat: Pin<Box<Sleep>>,
    sent: usize,
    prelude: Option<Bytes>,
    /// The session was told that this request is answered.
    detached: bool,
}

impl Receiver {
    /// None where another request receives already.
    pub fn attach(
        session: Arc<Session>,
        framing: Framing,
        limits: Limits,
        connection: CancellationToken,
    ) -> Option<Self> {
        if !session.attach(connection) {
            return None;
        }
        let heartbeat = Box::pin(sleep_until(Instant::now() + limits.heartbeat));
        let prelude = framing.prelude();
        Some(Self { session, framing, limits, heartbeat, sent: 0, prelude, detached: false })
    }

    /// The next piece of the answer; none when it is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(prelude) = self.prelude.take() {
            return Poll::Ready(Some(prelude));
        }
        if self.detached {
            return Poll::Ready(None);
        }
        let room = self.limits.response.saturating_sub(self.sent);
        let (frame, last) = match self.session.poll(cx, room) {
            Poll::Ready(Told::Open) => (self.framing.wrap(OPEN.as_bytes()), false),
            Poll::Ready(Told::Messages(strings)) => (self.framing.wrap(&framing::messages(&strings)), false),
            Poll::Ready(Told::Close(code, reason)) => {
                (self.framing.wrap(framing::close(code, reason).as_bytes()), true)
            }
            Poll::Pending => {
                std::task::ready!(self.heartbeat.as_mut().poll(cx));
                (self.framing.wrap(HEARTBEAT.as_bytes()), false)
            }
        };
        self.sent += frame.len();
        self.heartbeat.as_mut().reset(Instant::now() + self.limits.heartbeat);
        if last || self.framing.polls() || self.sent >= self.limits.response {
            self.detached = true;
            self.session.detach();
        }
        Poll::Ready(Some(frame))
    }

    pub async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll(cx)).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.detached {
            self.session.interrupt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::session::tests::session, *};
    use crate::session::{Class, Outgoing};

    const HEARTBEATS: Duration = Duration::from_secs(25);

    fn receiver(session: &Arc<Session>, framing: Framing) -> Option<Receiver> {
        let limits = Limits { response: 4096, heartbeat: HEARTBEATS };
        Receiver::attach(Arc::clone(session), framing, limits, CancellationToken::new())
    }

    fn push(outgoing: &Outgoing, text: &str) {
        outgoing.push(Class::Sequenced, format!("\"{text}\"").into());
        outgoing.flush(Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_is_answered_with_one_frame_of_all_that_waits() {
        let (session, outgoing) = session();
        let mut poll = receiver(&session, Framing::Xhr).unwrap();
        assert_eq!(poll.next().await.unwrap(), "o\n");
        assert_eq!(poll.next().await, None);
        push(&outgoing, "x");
        push(&outgoing, "y");
        let mut poll = receiver(&session, Framing::Xhr).unwrap();
        assert_eq!(poll.next().await.unwrap(), "a[\"x\",\"y\"]\n");
        assert_eq!(poll.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_streaming_answer_ends_after_the_response_limit() {
        let (session, outgoing) = session();
        let mut stream = receiver(&session, Framing::XhrStreaming).unwrap();
        assert_eq!(stream.next().await.unwrap().len(), 2049);
        assert_eq!(stream.next().await.unwrap(), "o\n");
        let text = "x".repeat(128);
        for _ in 0..31 {
            push(&outgoing, &text);
            assert_eq!(stream.next().await.unwrap(), format!("a[\"{text}\"]\n"));
        }
        assert_eq!(stream.next().await, None);
        // The next one goes on.
        push(&outgoing, "more");
        let mut stream = receiver(&session, Framing::EventSource).unwrap();
        assert_eq!(stream.next().await.unwrap(), "\r\n");
        assert_eq!(stream.next().await.unwrap(), "data: a[\"more\"]\r\n\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_come_while_nothing_else_does() {
        let (session, outgoing) = session();
        let mut stream = receiver(&session, Framing::EventSource).unwrap();
        stream.next().await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "data: o\r\n\r\n");
        let start = Instant::now();
        for beats in 1..=3 {
            assert_eq!(stream.next().await.unwrap(), "data: h\r\n\r\n");
            assert_eq!(start.elapsed(), HEARTBEATS * beats);
        }
        tokio::time::advance(HEARTBEATS / 2).await;
        push(&outgoing, "x");
        stream.next().await.unwrap();
        let start = Instant::now();
        assert_eq!(stream.next().await.unwrap(), "data: h\r\n\r\n");
        assert_eq!(start.elapsed(), HEARTBEATS, "counted from the last frame");
        // A poll is over with it.
        drop(stream);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_receiver_is_woken_by_a_frame_and_by_the_end() {
        let (session, outgoing) = session();
        let mut stream = receiver(&session, Framing::EventSource).unwrap();
        stream.next().await.unwrap();
        stream.next().await.unwrap();
        assert!(receiver(&session, Framing::Xhr).is_none(), "one receives already");
        let start = Instant::now();
        let answers = tokio::spawn(async move { [stream.next().await, stream.next().await, stream.next().await] });
        tokio::task::yield_now().await;
        push(&outgoing, "x");
        tokio::task::yield_now().await;
        outgoing.end(1001, "draining");
        let answers = answers.await.unwrap();
        assert_eq!(answers[0].as_deref(), Some(&b"data: a[\"x\"]\r\n\r\n"[..]));
        assert_eq!(answers[1].as_deref(), Some(&b"data: c[1001,\"draining\"]\r\n\r\n"[..]));
        assert_eq!(answers[2], None);
        assert_eq!(start.elapsed(), Duration::ZERO, "nothing waited for a heart-beat");
        assert!(receiver(&session, Framing::Xhr).is_some(), "the one before is answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_is_dropped_before_its_answer_is_over_interrupts_the_session() {
        let (session, _outgoing) = session();
        let mut poll = receiver(&session, Framing::Xhr).unwrap();
        assert_eq!(poll.next().await.unwrap(), "o\n");
        drop(poll);
        let poll = receiver(&session, Framing::Xhr).unwrap();
        drop(poll);
        let mut poll = receiver(&session, Framing::Xhr).unwrap();
        assert_eq!(poll.next().await.unwrap(), "c[1002,\"Connection interrupted\"]\n");
    }
}
