//! Frames of SockJS: `o`, `h`, `a["…",…]`, `c[code,"reason"]`, and what each transport wraps them in.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::json;

/// Nothing to say for a while, but the connection lives.
pub const HEARTBEAT: &str = "h";
/// The session is there.
pub const OPEN: &str = "o";

/// What stands before the callback's name on the page of htmlfile.
const HTMLFILE_HEAD: &str = r#"<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent."#;
/// And what stands behind it.
const HTMLFILE_TAIL: &str = r"
    c.start();
    function p(d) {c.message(d);};
    window.onload = function() {c.stop();};
  </script>
";
/// Browsers that need htmlfile show nothing of a page before they have so many bytes of it.
const HTMLFILE_PAGE: usize = 1024;
/// Browsers show nothing of a streaming XHR before they have so many bytes.
const XHR_PRELUDE: usize = 2048;

/// A close frame.
pub fn close(code: u16, reason: &str) -> String {
    let mut frame = format!("c[{code},");
    json::quote(&[reason], &mut frame);
    frame.push(']');
    frame
}

/// One frame of messages that are JSON strings already.
pub fn messages(strings: &[Bytes]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(2 + strings.iter().map(|string| string.len() + 1).sum::<usize>());
    frame.extend_from_slice(b"a[");
    for (index, string) in strings.iter().enumerate() {
        if index > 0 {
            frame.push(b',');
        }
        frame.extend_from_slice(string);
    }
    frame.push(b']');
    frame
}

/// How frames look in the answers of one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One frame an answer.
    Xhr,
    XhrStreaming,
    EventSource,
    /// A page that calls a function of the page around it.
    HtmlFile {
        callback: String,
    },
    /// One frame an answer: a script that calls a function.
    Jsonp {
        callback: String,
    },
}

impl Framing {
    /// Whether an answer is over after one frame.
    pub fn polls(&self) -> bool {
        matches!(self, Framing::Xhr | Framing::Jsonp { .. })
    }

    pub fn content_type(&self) -> &'static str {
        match self {
            Framing::Xhr | Framing::XhrStreaming | Framing::Jsonp { .. } => "application/javascript; charset=UTF-8",
            Framing::EventSource => "text/event-stream; charset=UTF-8",
            Framing::HtmlFile { .. } => "text/html; charset=UTF-8",
        }
    }

    /// What an answer begins with.
    pub fn prelude(&self) -> Option<Bytes> {
        match self {
            Framing::Xhr | Framing::Jsonp { .. } => None,
            Framing::XhrStreaming => {
                let mut prelude = vec![b'h'; XHR_PRELUDE];
                prelude.push(b'\n');
                Some(prelude.into())
            }
            Framing::EventSource => Some(Bytes::from_static(b"\r\n")),
            Framing::HtmlFile { callback } => {
                let mut page = [HTMLFILE_HEAD, callback, ";", HTMLFILE_TAIL].concat();
                // Room for the padding, or there is none.
                while page.len() < HTMLFILE_PAGE {
                    page.push(' ');
                }
                page.push_str("\r\n\r\n");
                Some(page.into())
            }
        }
    }

    /// One frame of SockJS, ready to be sent.
    pub fn wrap(&self, frame: &[u8]) -> Bytes {
        let (before, after): (&[&str], &str) = match self {
            Framing::Xhr | Framing::XhrStreaming => (&[], "\n"),
            Framing::EventSource => (&["data: "], "\r\n\r\n"),
            Framing::HtmlFile { .. } => (&["<script>\np("], ");\n</script>\r\n"),
            Framing::Jsonp { callback } => (&[callback, "("], ");\r\n"),
        };
        let mut out = BytesMut::with_capacity(frame.len() + 32);
        before.iter().for_each(|part| out.put_slice(part.as_bytes()));
        match self {
            Framing::HtmlFile { .. } | Framing::Jsonp { .. } => json::quote_for_script(frame, &mut out),
            Framing::Xhr | Framing::XhrStreaming | Framing::EventSource => out.put_slice(frame),
        }
        out.put_slice(after.as_bytes());
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callback() -> String {
        "callback".to_owned()
    }

    #[test]
    fn each_transport_wraps_frames_as_the_protocol_shows_them() {
        for (framing, open, message) in [
            (Framing::Xhr, "o\n", "a[\"x\"]\n"),
            (Framing::XhrStreaming, "o\n", "a[\"x\"]\n"),
            (Framing::EventSource, "data: o\r\n\r\n", "data: a[\"x\"]\r\n\r\n"),
            (
                Framing::HtmlFile { callback: callback() },
                "<script>\np(\"o\");\n</script>\r\n",
                "<script>\np(\"a[\\\"x\\\"]\");\n</script>\r\n",
            ),
            (Framing::Jsonp { callback: callback() }, "callback(\"o\");\r\n", "callback(\"a[\\\"x\\\"]\");\r\n"),
        ] {
            assert_eq!(framing.wrap(OPEN.as_bytes()), open);
            assert_eq!(framing.wrap(&messages(&[Bytes::from_static(b"\"x\"")])), message);
        }
    }

    #[test]
    fn a_message_can_not_leave_the_script_of_htmlfile() {
        let frame = messages(&[Bytes::from_static(b"\"</script><script>alert(1)//\"")]);
        let wrapped = Framing::HtmlFile { callback: callback() }.wrap(&frame);
        let text = str::from_utf8(&wrapped).unwrap();
        assert_eq!(text.matches('<').count(), 2, "{text}");
        let quoted = text.strip_prefix("<script>\np(").unwrap().strip_suffix(");\n</script>\r\n").unwrap();
        assert_eq!(serde_json::from_str::<String>(quoted).unwrap().as_bytes(), frame);
    }

    #[test]
    fn preludes_are_as_long_as_browsers_need_them() {
        let prelude = Framing::XhrStreaming.prelude().unwrap();
        assert_eq!(prelude, "h".repeat(2048) + "\n");
        assert_eq!(Framing::EventSource.prelude().unwrap(), "\r\n");
        let page = Framing::HtmlFile { callback: callback() }.prelude().unwrap();
        assert!(page.len() > 1024);
        let page = str::from_utf8(&page).unwrap();
        assert!(page.contains("    var c = parent.callback;\n    c.start();\n"), "{page}");
        assert!(page.trim().ends_with("</script>"), "{page}");
        assert_eq!(Framing::Xhr.prelude(), None);
    }

    #[test]
    fn a_close_frame_has_its_reason_as_json() {
        assert_eq!(close(3000, "Go away!"), r#"c[3000,"Go away!"]"#);
        assert_eq!(close(4400, "\"\n"), r#"c[4400,"\"\n"]"#);
    }
}
