//! Paths under the base.

/// Where SockJS is; the plain WebSocket is there too.
pub const BASE: &str = "/ws";

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    Greeting,
    Info,
    Iframe,
    /// A WebSocket without frames of SockJS.
    RawWebSocket,
    Session {
        id: &'a str,
        transport: Transport,
    },
    Unknown,
}

/// The last part of a session's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Xhr,
    XhrSend,
    XhrStreaming,
    EventSource,
    HtmlFile,
    Jsonp,
    JsonpSend,
}

impl Transport {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "websocket" => Self::WebSocket,
            "xhr" => Self::Xhr,
            "xhr_send" => Self::XhrSend,
            "xhr_streaming" => Self::XhrStreaming,
            "eventsource" => Self::EventSource,
            "htmlfile" => Self::HtmlFile,
            "jsonp" => Self::Jsonp,
            "jsonp_send" => Self::JsonpSend,
            _ => return None,
        })
    }

    /// The method of its requests.
    pub fn method(self) -> &'static str {
        match self {
            Self::Xhr | Self::XhrSend | Self::XhrStreaming | Self::JsonpSend => "POST",
            Self::WebSocket | Self::EventSource | Self::HtmlFile | Self::Jsonp => "GET",
        }
    }

    /// For Allow and Access-Control-Allow-Methods.
    pub fn methods(self) -> &'static str {
        if self.method() == "POST" { "OPTIONS, POST" } else { "OPTIONS, GET" }
    }
}

/// `max_id`: bytes of a session's id.
pub fn parse(path: &str, max_id: usize) -> Path<'_> {
    let Some(rest) = path.strip_prefix(BASE) else { return Path::Unknown };
    match rest {
        "" | "/" => return Path::Greeting,
        "/info" => return Path::Info,
        "/websocket" => return Path::RawWebSocket,
        _ => {}
    }
    if rest == "/iframe.html" {
        return Path::Iframe;
    }
    if let Some(version) = rest.strip_prefix("/iframe-").and_then(|rest| rest.strip_suffix(".html"))
        && !version.contains('/')
    {
        return Path::Iframe;
    }
    let mut parts = rest.split('/');
    let (Some(""), Some(server), Some(id), Some(transport), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Path::Unknown;
    };
    let is_id = |part: &str| !part.is_empty() && !part.contains('.');
    match Transport::parse(transport) {
        Some(transport) if is_id(server) && is_id(id) && id.len() <= max_id => Path::Session { id, transport },
        _ => Path::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart_as_in_the_protocols_test_suite() {
        for path in ["/ws", "/ws/"] {
            assert_eq!(parse(path, 10), Path::Greeting, "{path}");
        }
        for path in ["/iframe.html", "/iframe-a.html", "/iframe-.html", "/iframe-0.1.2abc-dirty.2144.html"] {
            assert_eq!(parse(&format!("/ws{path}"), 10), Path::Iframe, "{path}");
        }
        for path in
            ["/iframe.htm", "/iframe", "/IFRAME.HTML", "/IFRAME", "/iframe.HTML", "/iframe.xml", "/iframe-/.html"]
        {
            assert_eq!(parse(&format!("/ws{path}"), 10), Path::Unknown, "{path}");
        }
        for path in ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/"] {
            assert_eq!(parse(&format!("/ws{path}"), 10), Path::Unknown, "{path}");
        }
        for ids in ["//", "/a./a", "/a/a.", "/./.", "/", "///"] {
            assert_eq!(parse(&format!("/ws{ids}/xhr"), 10), Path::Unknown, "{ids}");
        }
        for (server, id) in [("_", "_"), ("1", "1"), ("abcdefgh_i-j%20", "abc_i-j%20")] {
            let path = format!("/ws/{server}/{id}/xhr");
            assert_eq!(parse(&path, 10), Path::Session { id, transport: Transport::Xhr }, "{path}");
        }
        assert_eq!(parse("/ws/a/12345678901/xhr", 10), Path::Unknown, "too long an id");
        assert_eq!(parse("/ws/a/b/xhr_stream", 10), Path::Unknown);
        assert_eq!(parse("/wsx", 10), Path::Unknown);
        assert_eq!(parse("/", 10), Path::Unknown);
    }
}
