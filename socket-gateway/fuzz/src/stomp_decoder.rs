//! Bytes to STOMP frames.
//!
//! 1. The same bytes in any pieces give the same frames, and the same error.
//! 2. No frame is above a limit, and no more is held than the largest line or body.
//! 3. A frame that a reference writes again is read as the same frame.

use bytes::BytesMut;
use socket_gateway::stomp::{Decoder, Frame, Limits, Verb, Version};

use super::pieces::cuts;

pub const WIDE: Limits = Limits { line: 8192, headers: 64, head: 32_768, body: 262_144 };
const TIGHT: Limits = Limits { line: 24, headers: 3, head: 48, body: 16 };
/// What [`TIGHT`] or [`WIDE`] have let in, escaped again and with CRLF.
const REWRITTEN: Limits = Limits { line: 20_000, headers: 64, head: 80_000, body: 262_144 };

const VERSIONS: [Version; 4] = [Version::V1_2, Version::V1_1, Version::V1_0, Version::V1_2];

/// `[flags, cut, bytes..]`; flags: version (2 bits), tight limits (1), version set only behind the first frame (1).
pub fn run(data: &[u8]) {
    let [flags, cut, stream @ ..] = data else { return };
    let version = VERSIONS[usize::from(flags & 3)];
    let limits = if flags & 4 == 0 { WIDE } else { TIGHT };
    let negotiated = flags & 8 != 0;
    let mut ways = cuts(stream, *cut).into_iter().map(|pieces| decode(&pieces, limits, version, negotiated));
    let whole = ways.next().unwrap_or_default();
    for cut in ways {
        assert_eq!(whole, cut, "the same bytes, cut otherwise");
    }
    for (at, frame) in whole.frames.iter().enumerate() {
        check_limits(frame, &limits);
        let version = if negotiated && at == 0 { Version::V1_2 } else { version };
        check_rewritten(frame, version);
    }
}

/// What came of bytes.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    pub frames: Vec<Frame>,
    /// As text: which of the frame at fault has arrived already is no matter.
    pub error: Option<String>,
}

/// Takes all frames out of `pieces`.
pub fn decode(pieces: &[&[u8]], limits: Limits, version: Version, negotiated: bool) -> Decoded {
    let (mut decoder, mut buf, mut decoded) = (Decoder::new(limits), BytesMut::new(), Decoded::default());
    if !negotiated {
        decoder.set_version(version);
    }
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(frame)) => decoded.frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    decoded.error = Some(error.to_string());
                    return decoded;
                }
            }
            decoder.set_version(version);
        }
        let most = limits.body.max(limits.line + 1);
        assert!(buf.len() <= most, "{} bytes are held; {most} are allowed", buf.len());
    }
    decoded
}

fn check_limits(frame: &Frame, limits: &Limits) {
    let Frame { headers, body, .. } = frame;
    assert!(body.len() <= limits.body, "a body of {} bytes", body.len());
    assert!(headers.len() <= limits.headers, "{} headers", headers.len());
    let lines = || headers.iter().map(|(name, value)| name.len() + 1 + value.len());
    assert!(lines().all(|line| line <= limits.line), "a header line is too long");
    assert!(lines().map(|line| line + 1).sum::<usize>() <= limits.head, "the headers are too long");
}

fn check_rewritten(frame: &Frame, version: Version) {
    let written = write(frame, version);
    let again = decode(&[&written], REWRITTEN, version, false);
    assert_eq!(again.error, None, "written again as {:?}", String::from_utf8_lossy(&written));
    assert_eq!(again.frames, std::slice::from_ref(frame));
}

/// A reference. All lines end with CRLF, which is allowed everywhere: a carriage return before it belongs to the value.
pub fn write(frame: &Frame, version: Version) -> Vec<u8> {
    let escaped = version != Version::V1_0 && !matches!(frame.verb, Verb::Connect | Verb::Connected);
    let text = |text: &str| match escaped {
        true => text.replace('\\', "\\\\").replace('\n', "\\n").replace(':', "\\c"),
        false => text.to_owned(),
    };
    let mut out = format!("{}\r\n", frame.verb.as_str());
    for (name, value) in frame.headers.iter() {
        out.push_str(&format!("{}:{}\r\n", text(name), text(value)));
    }
    out.push_str("\r\n");
    [out.as_bytes(), &frame.body, b"\0"].concat()
}
