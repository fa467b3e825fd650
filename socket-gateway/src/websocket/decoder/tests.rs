use proptest::prelude::*;

use super::*;
use crate::websocket::Deflate;

const LIMITS: Limits = Limits { frame: 70_000, message: 100_000 };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    out
}

/// All that comes of bytes that arrive in pieces.
fn decode_with(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<(Vec<Step>, Vec<u8>), Fault> {
    let (mut steps, mut out) = (Vec::new(), BytesMut::new());
    for piece in bytes.chunks(piece.max(1)) {
        let mut input = piece.to_vec();
        let mut rest = &mut input[..];
        while !rest.is_empty() {
            let (used, step) = decoder.decode(rest, &mut out)?;
            assert!(used > 0, "it must go on");
            steps.extend(step);
            rest = &mut rest[used..];
        }
    }
    Ok((steps, out.to_vec()))
}

fn decode(bytes: &[u8]) -> Result<(Vec<Step>, Vec<u8>), Fault> {
    decode_with(&mut Decoder::new(LIMITS, false), bytes, usize::MAX)
}

fn fault(bytes: &[u8]) -> u16 {
    decode(bytes).unwrap_err().close_code
}

const PONG: Step = Step::Control(Control::Pong);

#[test]
fn the_example_of_the_rfc_is_read() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&hello).unwrap(), (vec![Step::Message], b"Hello".to_vec()));
}

#[test]
fn control_frames_may_come_between_the_fragments_of_a_message() {
    let bytes =
        [frame(0x01, b"Hel"), frame(0x89, b"?"), frame(0x00, b""), frame(0x8a, b""), frame(0x80, b"lo")].concat();
    for piece in 1..bytes.len() {
        let (steps, out) = decode_with(&mut Decoder::new(LIMITS, false), &bytes, piece).unwrap();
        let ping = Step::Control(Control::Ping(Bytes::from_static(b"?")));
        assert_eq!((steps, &out[..]), (vec![ping, PONG, Step::Message], &b"Hello"[..]));
    }
}

#[test]
fn payloads_of_every_length_form_come_through() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![b'x'; len];
        assert_eq!(decode(&frame(0x82, &payload)).unwrap(), (vec![Step::Message], payload));
    }
}

#[test]
fn breaches_of_the_protocol_end_with_1002() {
    let unmasked = [0x81, 0x01, b'x'];
    assert_eq!(fault(&unmasked), 1002);
    for first in [0x83, 0x87, 0x8b, 0x8f, 0xa1, 0x91, 0xc1, 0xc9] {
        assert_eq!(fault(&frame(first, b"")), 1002, "{first:#x}");
    }
    assert_eq!(fault(&frame(0x09, b"")), 1002, "a ping in pieces");
    assert_eq!(fault(&frame(0x89, &[0; 126])), 1002, "a long ping");
    assert_eq!(fault(&frame(0x80, b"")), 1002, "nothing to be continued");
    assert_eq!(fault(&[frame(0x01, b"a"), frame(0x81, b"b")].concat()), 1002, "a message within a message");
    assert_eq!(fault(&[&[0x81, 0xfe, 0, 125][..], &MASK].concat()), 1002, "not the shortest form");
    assert_eq!(fault(&[&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..], &MASK].concat()), 1002);
    assert_eq!(fault(&[&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &MASK].concat()), 1002);
}

#[test]
fn close_frames_are_checked() {
    let close = |code: u16, reason: &[u8]| decode(&frame(0x88, &[&code.to_be_bytes(), reason].concat()));
    let closed = |code| vec![Step::Control(Control::Close(code))];
    assert_eq!(decode(&frame(0x88, b"")).unwrap().0, closed(None));
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
        assert_eq!(close(code, b"bye").unwrap().0, closed(Some(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert_eq!(close(code, b"").unwrap_err().close_code, 1002, "{code}");
    }
    assert_eq!(close(1000, b"\xff").unwrap_err().close_code, 1007);
    assert_eq!(fault(&frame(0x88, b"\x03")), 1002);
}

#[test]
fn text_that_is_no_utf8_ends_with_1007_as_soon_as_it_is_seen() {
    assert_eq!(fault(&frame(0x01, b"\xff")), 1007, "before the message is over");
    assert_eq!(fault(&[frame(0x01, "ä".as_bytes()), frame(0x80, b"\xc3")].concat()), 1007, "cut at the end");
    let split = [frame(0x01, &"ä".as_bytes()[..1]), frame(0x80, &"ä".as_bytes()[1..])].concat();
    assert_eq!(decode(&split).unwrap().1, "ä".as_bytes());
    assert!(decode(&frame(0x82, b"\xff")).is_ok(), "a binary message may hold anything");
}

#[test]
fn limits_are_checked_before_the_payload_comes() {
    let header = |len: u64| [&[0x82, 0xff][..], &len.to_be_bytes(), &MASK].concat();
    assert_eq!(fault(&header(70_001)), 1009);
    assert_eq!(fault(&[frame(0x02, &[0; 60_000]), frame(0x80, &[0; 60_000])].concat()), 1009);
    assert!(decode(&[frame(0x82, &[0; 60_000]), frame(0x82, &[0; 60_000])].concat()).is_ok());
}

/// The payload of a server's frame shorter than 64 KiB.
fn payload(frame: &Bytes) -> &[u8] {
    if frame[1] < 126 { &frame[2..] } else { &frame[4..] }
}

#[test]
fn compressed_messages_are_inflated_in_fragments_and_up_to_the_limit() {
    let deflate = Deflate::agree("permessage-deflate").unwrap();
    let text = "SEND\ndestination:/app\n\nhello\0".repeat(50);
    let compressed = crate::websocket::compress(deflate, &[&text]);
    let (start, end) = payload(&compressed).split_at(10);
    let bytes = [frame(0x41, start), frame(0x89, b""), frame(0x80, end), frame(0x81, b"plain")].concat();
    for piece in [1, 3, usize::MAX] {
        let (steps, out) = decode_with(&mut Decoder::new(LIMITS, true), &bytes, piece).unwrap();
        assert_eq!(steps.len(), 3);
        assert_eq!(out, format!("{text}plain").as_bytes());
    }
    let bomb = crate::websocket::compress(deflate, &[&"\0".repeat(200_000)]);
    let mut decoder = Decoder::new(LIMITS, true);
    let why = decode_with(&mut decoder, &frame(0xc1, payload(&bomb)), usize::MAX).unwrap_err();
    assert_eq!(why.close_code, 1009);
}

#[test]
fn of_two_things_that_are_wrong_the_first_is_told_however_the_bytes_come() {
    let limits = Limits { frame: 64, message: 100 };
    let deflate = Deflate::agree("permessage-deflate").unwrap();
    let code = |bytes: &[u8], piece| decode_with(&mut Decoder::new(limits, true), bytes, piece).unwrap_err().close_code;
    // The second frame's header says that the message is too large; then its text is no UTF-8.
    let plain = [frame(0x01, &[b'x'; 60]), frame(0x80, &[0xff; 60])].concat();
    // Inflated it is no UTF-8 after 30 characters, and too large after 100.
    let text: Vec<u8> = [&[b'x'; 30][..], &[0xff; 200]].concat();
    let mut inner = flate2::Compress::new(flate2::Compression::fast(), false);
    let mut compressed = Vec::with_capacity(64);
    inner.compress_vec(&text, &mut compressed, flate2::FlushCompress::Sync).unwrap();
    let compressed = frame(0xc1, &compressed[..compressed.len() - 4]);
    // And one that is too large in good text.
    let large = frame(0xc1, payload(&crate::websocket::compress(deflate, &[&"x".repeat(200)])));
    for piece in [1, 2, 7, usize::MAX] {
        assert_eq!(code(&plain, piece), 1009);
        assert_eq!(code(&compressed, piece), 1007);
        assert_eq!(code(&large, piece), 1009);
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_and_never_panic(bytes: Vec<u8>, piece in 1_usize..40, deflate: bool) {
        let whole = decode_with(&mut Decoder::new(LIMITS, deflate), &bytes, usize::MAX);
        let pieces = decode_with(&mut Decoder::new(LIMITS, deflate), &bytes, piece);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn frames_in_any_pieces_give_the_same(
        frames in prop::collection::vec((prop::sample::select(vec![0x01_u8, 0x02, 0x00, 0x80, 0x81, 0x82, 0x89, 0x8a, 0xc1]),
            prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        piece in 1_usize..300,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        let whole = decode_with(&mut Decoder::new(LIMITS, true), &bytes, usize::MAX);
        let pieces = decode_with(&mut Decoder::new(LIMITS, true), &bytes, piece);
        prop_assert_eq!(whole, pieces);
    }
}
