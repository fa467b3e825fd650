//! A request's headers to what is agreed on, and frames that are compressed as agreed.
//!
//! 1. Whatever the headers, the answer is a response; what it agrees to was offered.
//! 2. What is compressed as agreed is inflated by a client with that window, and by the server's own decoder.

use bytes::{Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use http::{
    HeaderName, HeaderValue, Method, Request, Response, Version,
    header::{
        CONNECTION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use socket_gateway::{
    stomp,
    websocket::{Decoder, Limits, Step, compress, handshake},
};

use super::client_frame::Form;

/// `[flags, lines of headers.., an empty line, text..]`; flags: the headers that every client sends are there already
/// (bit 0), compression is allowed (1), the method is POST (2), the version is HTTP/1.0 (3).
pub fn run(data: &[u8]) {
    let [flags, data @ ..] = data else { return };
    let end = data.windows(2).position(|two| two == b"\n\n");
    let (lines, text) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 2..]));
    let request = request(*flags, lines);
    let allowed = flags & 2 != 0;
    let accepted = match handshake::check(&request, &handshake::RFC_6455, &stomp::Version::SUBPROTOCOLS, allowed) {
        Ok(accepted) => accepted,
        Err(refused) => {
            assert!(refused.status().is_client_error() && !refused.to_string().is_empty());
            assert_ne!(*flags & 0b1101, 1, "{refused}: {request:?}");
            return;
        }
    };
    let response: Response<()> = accepted.response();
    assert_eq!(response.status(), 101);
    let answer = |name: &HeaderName| response.headers().get(name).map(|value| value.to_str().expect("ASCII"));
    let offered = |name: &HeaderName| {
        let all = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        all.collect::<Vec<_>>().join(",")
    };
    assert_eq!(answer(&SEC_WEBSOCKET_PROTOCOL), accepted.protocol);
    if let Some(protocol) = accepted.protocol {
        assert!(offered(&SEC_WEBSOCKET_PROTOCOL).contains(protocol));
    }
    assert_eq!(answer(&SEC_WEBSOCKET_EXTENSIONS).is_some(), accepted.deflate.is_some());
    let (Some(deflate), Some(answer)) = (accepted.deflate, answer(&SEC_WEBSOCKET_EXTENSIONS)) else { return };
    assert!(allowed, "it was not allowed");
    assert!(offered(&SEC_WEBSOCKET_EXTENSIONS).contains("permessage-deflate"));
    let bits = match answer.split_once("server_max_window_bits=") {
        None => 15,
        Some((_, bits)) => {
            let offered = offered(&SEC_WEBSOCKET_EXTENSIONS).replace([' ', '\t', '"'], "");
            assert!(offered.contains(&format!("server_max_window_bits={bits}")), "{answer}");
            bits.parse().expect("a number")
        }
    };
    assert!((9..=15).contains(&bits), "{answer}");
    let text = String::from_utf8_lossy(text).repeat(1 + usize::from(*flags >> 4) * 16);
    let half = text.floor_char_boundary(text.len() / 2);
    let frame = compress(deflate, &[&text[..half], &text[half..]]);
    assert_eq!(inflated(&frame, bits, text.len()), text.as_bytes());
    assert_eq!(decoded(&frame, text.len()), text.as_bytes());
}

fn request(flags: u8, lines: &[u8]) -> Request<()> {
    let mut request = Request::new(());
    if flags & 4 != 0 {
        *request.method_mut() = Method::POST;
    }
    if flags & 8 != 0 {
        *request.version_mut() = Version::HTTP_10;
    }
    let headers = request.headers_mut();
    if flags & 1 != 0 {
        for (name, value) in [
            (CONNECTION, "keep-alive, Upgrade"),
            (UPGRADE, "websocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    for line in lines.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    request
}

fn payload(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0xc1, "FIN, RSV1, text");
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

/// What a client with a window of `bits` reads.
fn inflated(frame: &Bytes, bits: u8, len: usize) -> Vec<u8> {
    let input = [payload(frame), &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(len + 64);
    let status = Decompress::new_with_window_bits(false, bits)
        .decompress_vec(&input, &mut out, FlushDecompress::Sync)
        .expect("it can be inflated");
    assert_eq!(status, Status::Ok);
    out
}

/// What the server would read, were it sent back.
fn decoded(frame: &Bytes, len: usize) -> Vec<u8> {
    let mut input = Vec::new();
    Form { mask: Some([1, 2, 3, 4]), long: false }.push(0xc1, payload(frame), &mut input);
    let (limits, mut out) = (Limits { frame: usize::MAX >> 1, message: len }, BytesMut::new());
    let came = Decoder::new(limits, true).decode(&mut input, &mut out).expect("it can be decoded");
    assert_eq!(came, (input.len(), Some(Step::Message)));
    out.to_vec()
}
