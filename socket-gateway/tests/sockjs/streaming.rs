//! xhr-streaming, eventsource and htmlfile.

use crate::{
    CLOSE, REFUSED, assert_cors, assert_error, assert_not_cached,
    gateway::Gateway,
    http::{Answer, Request},
};

/// A streaming transport.
struct Streaming {
    method: &'static str,
    suffix: &'static str,
    content_type: &'static str,
    /// What stands around a frame.
    around: (&'static str, &'static str),
    /// Whether the frame is a string of JavaScript.
    quoted: bool,
}

const STREAMING: [Streaming; 3] = [
    Streaming {
        method: "POST",
        suffix: "xhr_streaming",
        content_type: "application/javascript;charset=UTF-8",
        around: ("", "\n"),
        quoted: false,
    },
    Streaming {
        method: "GET",
        suffix: "eventsource",
        content_type: "text/event-stream;charset=UTF-8",
        around: ("data: ", "\r\n\r\n"),
        quoted: false,
    },
    Streaming {
        method: "GET",
        suffix: "htmlfile?c=%63allback",
        content_type: "text/html;charset=UTF-8",
        around: ("<script>\np(", ");\n</script>\r\n"),
        quoted: true,
    },
];

impl Streaming {
    /// Asks, and reads what the answer begins with.
    async fn open(&self, gateway: &Gateway, path: &str) -> Answer {
        let mut answer = gateway.ask(Request::new(self.method, &format!("{path}/{}", self.suffix))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.content_type().unwrap(), self.content_type);
        assert_cors(&answer, None);
        assert_not_cached(&answer);
        let prelude = answer.chunk().await.unwrap();
        match self.suffix {
            "xhr_streaming" => assert_eq!(prelude, "h".repeat(2048) + "\n"),
            "eventsource" => assert_eq!(prelude, "\r\n"),
            _ => {
                assert!(prelude.len() > 1024);
                assert_eq!(prelude.trim_end(), include_str!("htmlfile.html").trim_end());
            }
        }
        answer
    }

    /// The next frame; none at the end.
    async fn frame(&self, answer: &mut Answer) -> Option<String> {
        let chunk = answer.chunk().await?;
        let (before, after) = self.around;
        let frame = chunk.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).expect(&chunk);
        Some(if self.quoted { serde_json::from_str(frame).unwrap() } else { frame.to_owned() })
    }
}

#[tokio::test]
async fn a_stream_opens_and_brings_the_error_before_the_close_and_ends() {
    let gateway = Gateway::start().await;
    for transport in &STREAMING {
        let path = gateway.session();
        let mut first = transport.open(&gateway, &path).await;
        assert_eq!(transport.frame(&mut first).await.unwrap(), "o");
        assert_eq!(gateway.post(&format!("{path}/xhr_send"), REFUSED).await.status, 204);
        assert_error(&transport.frame(&mut first).await.unwrap());
        assert_eq!(transport.frame(&mut first).await.unwrap(), CLOSE);
        // A session that has ended tells everybody why, and not that somebody else receives.
        let mut second = transport.open(&gateway, &path).await;
        assert_eq!(transport.frame(&mut second).await.unwrap(), CLOSE);
        assert_eq!(transport.frame(&mut first).await, None);
        assert_eq!(transport.frame(&mut second).await, None);
    }
}

#[tokio::test]
async fn an_answer_ends_after_the_response_limit_and_the_next_one_goes_on() {
    let gateway = Gateway::with(&[("SOCKJS__RESPONSE_LIMIT", "1B")]).await;
    for transport in &STREAMING {
        let path = gateway.session();
        let only = async || {
            let mut answer = transport.open(&gateway, &path).await;
            let frame = transport.frame(&mut answer).await.unwrap();
            assert_eq!(transport.frame(&mut answer).await, None);
            frame
        };
        assert_eq!(only().await, "o");
        assert_eq!(gateway.post(&format!("{path}/xhr_send"), REFUSED).await.status, 204);
        assert_error(&only().await);
        assert_eq!(only().await, CLOSE);
    }
}

#[tokio::test]
async fn heartbeats_come_on_every_transport() {
    let gateway = Gateway::with(&[("SOCKJS__HEARTBEAT", "50ms")]).await;
    for transport in &STREAMING {
        let mut answer = transport.open(&gateway, &gateway.session()).await;
        assert_eq!(transport.frame(&mut answer).await.unwrap(), "o");
        for _ in 0..3 {
            assert_eq!(transport.frame(&mut answer).await.unwrap(), "h");
        }
    }
    let path = gateway.session();
    assert_eq!(gateway.post(&format!("{path}/xhr"), "").await.body().await, "o\n");
    // A poll is over with it.
    assert_eq!(gateway.post(&format!("{path}/xhr"), "").await.body().await, "h\n");
}
