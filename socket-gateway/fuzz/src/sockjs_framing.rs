//! SockJS: what clients send in JSON, forms, paths and queries; and what frames look like on each transport.
//!
//! 1. A client's JSON is taken as a plain JSON library takes it, or not at all; a form gives back what was put into it.
//! 2. What the server writes, a client takes apart again on every transport, and no proxy or browser is misled by it.
//! 3. A path or callback that is let in is what it is said to be.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use socket_gateway::transport::sockjs::{
    framing::{self, Framing},
    json::{self, Accept},
    path::{self, Path},
    query::{self, Callback},
};

/// Bytes of a session's id.
const MAX_ID: usize = 32;

/// `[kind, bytes..]`; the kind is J: JSON, F: a form, M: messages with NULs between them, P: a path with a query.
pub fn run(data: &[u8]) {
    let [kind, bytes @ ..] = data else { return };
    match kind {
        b'J' => read(bytes),
        b'F' => form(bytes),
        b'M' => written(&String::from_utf8_lossy(bytes)),
        b'P' => path(&String::from_utf8_lossy(bytes)),
        _ => {}
    }
}

fn read(bytes: &[u8]) {
    for accept in [Accept::Array, Accept::ArrayOrString] {
        let mut out = BytesMut::from("before");
        let result = json::read(bytes, accept, &mut out);
        let expected = serde_json::from_slice::<Vec<String>>(bytes).map(|strings| strings.concat());
        let expected = match accept {
            Accept::Array => expected,
            Accept::ArrayOrString => expected.or_else(|_| serde_json::from_slice::<String>(bytes)),
        };
        assert_eq!(result.is_ok(), expected.is_ok(), "{result:?}, {expected:?}");
        assert_eq!(out, format!("before{}", expected.unwrap_or_default()), "nothing is taken of what is wrong");
    }
}

fn form(bytes: &[u8]) {
    // Whatever comes.
    let value = query::field(bytes, "d");
    assert!(value.is_none_or(|value| value.len() <= bytes.len()));
    // And what a browser makes of a value.
    let mut encoded = "p=x&d=".to_owned();
    for byte in bytes {
        match byte {
            b' ' => encoded.push('+'),
            byte if byte.is_ascii_alphanumeric() => encoded.push(char::from(*byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded.push_str("&d=second");
    assert_eq!(query::field(encoded.as_bytes(), "d").as_deref(), Some(bytes));
}

fn written(text: &str) {
    let messages: Vec<&str> = text.split('\0').collect();
    let strings = messages.iter().map(|message| {
        let half = message.floor_char_boundary(message.len() / 2);
        let mut string = String::new();
        json::quote(&[&message[..half], &message[half..]], &mut string);
        Bytes::from(string)
    });
    let frame = framing::messages(&strings.collect::<Vec<_>>());
    let taken: Vec<String> = serde_json::from_slice(frame.strip_prefix(b"a").expect("messages")).expect("JSON");
    assert_eq!(taken, messages);
    let close = framing::close(3000, text);
    let taken: (u16, String) = serde_json::from_str(close.strip_prefix('c').expect("a close frame")).expect("JSON");
    assert_eq!(taken, (3000, text.to_owned()));
    for frame in [&frame[..], close.as_bytes(), framing::OPEN.as_bytes(), framing::HEARTBEAT.as_bytes()] {
        let callback = || "a.b".to_owned();
        for framing in [
            Framing::Xhr,
            Framing::XhrStreaming,
            Framing::EventSource,
            Framing::HtmlFile { callback: callback() },
            Framing::Jsonp { callback: callback() },
        ] {
            let wrapped = framing.wrap(frame);
            let wrapped = std::str::from_utf8(&wrapped).expect("text");
            assert!(!wrapped.contains(unsafe_on_the_way), "{wrapped:?}");
            assert_eq!(unwrapped(&framing, wrapped).as_bytes(), frame);
        }
    }
}

/// What browsers or proxies are known to spoil (sockjs-protocol, "Unicode").
fn unsafe_on_the_way(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f')
        || matches!(c, '\u{200c}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{ffff}')
}

/// As a client takes a frame out of its transport.
fn unwrapped<'a>(framing: &Framing, wrapped: &'a str) -> Cow<'a, str> {
    let between = |before: &str, after: &str| {
        wrapped.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).expect("it is wrapped")
    };
    let one_line = |line: &'a str| {
        assert!(!line.contains(['\n', '\r']), "{line:?}");
        line
    };
    let script = |argument: &'a str| {
        assert!(!one_line(argument).contains('<'), "{argument:?}");
        Cow::Owned(serde_json::from_str::<String>(argument).expect("a string"))
    };
    match framing {
        Framing::Xhr | Framing::XhrStreaming => one_line(between("", "\n")).into(),
        Framing::EventSource => one_line(between("data: ", "\r\n\r\n")).into(),
        Framing::HtmlFile { .. } => script(between("<script>\np(", ");\n</script>\r\n")),
        Framing::Jsonp { callback } => script(between(&format!("{callback}("), ");\r\n")),
    }
}

fn path(text: &str) {
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if let Path::Session { id, transport } = path::parse(path, MAX_ID) {
        assert!((1..=MAX_ID).contains(&id.len()) && !id.contains(['/', '.']), "{id:?}");
        let parts: Vec<&str> = path.split('/').collect();
        assert_eq!((parts.len(), parts[0], parts[3]), (5, "", id));
        assert!(["GET", "POST"].contains(&transport.method()));
    }
    if let Callback::Good(callback) = query::callback(query) {
        let named = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        assert!((1..=128).contains(&callback.len()) && callback.chars().all(named), "{callback:?}");
    }
}
