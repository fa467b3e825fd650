use proptest::prelude::*;

use super::*;
use crate::stomp::Writer;

const LIMITS: Limits = Limits { line: 200, headers: 8, head: 800, body: 1000 };

fn decode_all(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Frame>, DecodeError> {
    let mut buf = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.decode(&mut buf)? {
        frames.push(frame);
    }
    Ok(frames)
}

fn decode(bytes: &[u8]) -> Result<Vec<Frame>, DecodeError> {
    decode_all(&mut Decoder::new(LIMITS), bytes)
}

fn one(bytes: &[u8]) -> Frame {
    let mut frames = decode(bytes).unwrap();
    assert_eq!(frames.len(), 1, "{frames:?}");
    frames.remove(0)
}

#[test]
fn several_frames_come_out_of_one_message_and_line_ends_between_them_are_heart_beats() {
    let frames = decode(b"\n\r\nCONNECT\naccept-version:1.2\n\n\0\n\n\nDISCONNECT\r\nreceipt:1\r\n\r\n\0\n").unwrap();
    assert_eq!(frames.iter().map(|f| f.verb).collect::<Vec<_>>(), [Verb::Connect, Verb::Disconnect]);
    assert_eq!(frames[1].headers.get("receipt"), Some("1"));
}

#[test]
fn of_repeated_headers_the_first_counts() {
    assert_eq!(one(b"SEND\nfoo:World\nfoo:Hello\n\n\0").headers.get("foo"), Some("World"));
}

#[test]
fn connect_is_not_unescaped_and_other_frames_are() {
    assert_eq!(one(b"CONNECT\npasscode:a\\tb\n\n\0").headers.get("passcode"), Some("a\\tb"));
    assert_eq!(one(b"SEND\nkey:a\\cb\\n\n\n\0").headers.get("key"), Some("a:b\n"));
    assert_eq!(one(b"SEND\nk\\cey:x\n\n\0").headers.get("k:ey"), Some("x"));
    assert_eq!(one(b"SEND\na:b:c\n\n\0").headers.get("a"), Some("b:c"));
}

#[test]
fn a_body_with_content_length_may_hold_nul_bytes() {
    assert_eq!(&one(b"SEND\ncontent-length:3\n\na\0b\0").body[..], b"a\0b");
    assert_eq!(decode(b"SEND\ncontent-length:2\n\na\0b\0"), Err(DecodeError::NoNul(2)));
}

#[test]
fn what_is_no_stomp_is_refused_by_what_is_wrong() {
    assert_eq!(decode(b"HELO\n\n\0"), Err(DecodeError::UnknownCommand("HELO".into())));
    assert_eq!(decode(b"SEND\nnocolon\n\n\0"), Err(DecodeError::NoColon("nocolon".into())));
    assert_eq!(decode(b"SEND\na:\\x\n\n\0"), Err(DecodeError::BadEscape("a:\\x".into())));
    assert_eq!(decode(b"SEND\na:\xff\n\n\0"), Err(DecodeError::NotUtf8));
    assert_eq!(decode(b"SEND\ncontent-length:-1\n\n\0"), Err(DecodeError::BadContentLength("-1".into())));
}

#[test]
fn limits_hold_before_the_delimiter_is_there() {
    assert_eq!(decode(&[b'A'; 300]), Err(DecodeError::LineTooLong(200)));
    assert_eq!(decode(b"SEND\ncontent-length:1001\n\n"), Err(DecodeError::BodyTooLarge(1000)));
    let endless = [b"SEND\n\n".to_vec(), vec![b'x'; 1001]].concat();
    assert_eq!(decode(&endless), Err(DecodeError::BodyTooLarge(1000)));
    let many = format!("SEND\n{}", "a:b\n".repeat(9));
    assert_eq!(decode(many.as_bytes()), Err(DecodeError::TooManyHeaders(8)));
    let long = format!("SEND\n{}", format!("a:{}\n", "b".repeat(190)).repeat(5));
    assert_eq!(decode(long.as_bytes()), Err(DecodeError::HeadTooLarge(800)));
}

#[test]
fn a_limit_is_reached_without_being_exceeded() {
    let body = vec![b'x'; 1000];
    assert_eq!(one(&[b"SEND\n\n".as_slice(), &body, b"\0"].concat()).body.len(), 1000);
    let line = format!("a:{}", "b".repeat(198));
    assert_eq!(one(format!("SEND\n{line}\n\n\0").as_bytes()).headers.get("a").map(str::len), Some(198));
}

fn header_text() -> impl Strategy<Value = String> {
    // Any text that a header can carry, with what needs escaping made likely; NUL can't be carried.
    proptest::collection::vec(
        prop_oneof![
            Just(':'),
            Just('\\'),
            Just('\n'),
            Just('\r'),
            "[^\0]".prop_map(|s| s.chars().next().unwrap_or('x'))
        ],
        1..20,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn frame() -> impl Strategy<Value = Frame> {
    let verb = proptest::sample::select(Verb::ALL).prop_filter("never escaped", |verb| verb.is_escaped());
    let headers = proptest::collection::vec((header_text(), header_text()), 0..5)
        .prop_map(|pairs| pairs.into_iter().filter(|(name, _)| name != "content-length").collect::<Headers>());
    (verb, headers, proptest::collection::vec(any::<u8>(), 0..100)).prop_map(|(verb, headers, body)| Frame {
        verb,
        headers,
        body: body.into(),
    })
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut writer = Writer::new(frame.verb, Version::V1_2);
    for (name, value) in &frame.headers.0 {
        writer = writer.header(name, value);
    }
    writer.body(&frame.body)
}

fn without_content_length(mut frame: Frame) -> Frame {
    frame.headers.0.retain(|(name, _)| name != "content-length");
    frame
}

const WIDE: Limits = Limits { line: 4096, headers: 64, head: 65536, body: 4096 };

proptest! {
    #[test]
    fn a_frame_is_read_back_as_it_was_written(frame in frame()) {
        let read = decode_all(&mut Decoder::new(WIDE), &encode(&frame)).unwrap();
        prop_assert_eq!(read.into_iter().map(without_content_length).collect::<Vec<_>>(), vec![frame]);
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_frames(
        frames in proptest::collection::vec(frame(), 1..4),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| [encode(frame), b"\n".to_vec()].concat()).collect();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let (mut decoder, mut buf, mut read, mut from) = (Decoder::new(WIDE), BytesMut::new(), Vec::new(), 0);
        for end in ends {
            buf.extend_from_slice(&bytes[from..end]);
            from = end;
            while let Some(frame) = decoder.decode(&mut buf).unwrap() {
                read.push(without_content_length(frame));
            }
        }
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }
}
