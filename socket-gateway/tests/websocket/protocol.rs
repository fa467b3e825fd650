//! Frames, fragments, control frames, close codes, compression.

use std::io::{Read as _, Write as _};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

use crate::{
    REFUSED,
    client::{BINARY, CLOSE, COMPRESSED, Client, PING, PONG, TEXT, frame},
    gateway::Gateway,
};

/// One message of STOMP in pieces of one byte, a ping between each.
fn in_pieces(message: &[u8]) -> Vec<u8> {
    let last = message.len() - 1;
    let pieces = message.iter().enumerate().flat_map(|(at, byte)| {
        let opcode = if at == 0 { 0x01 } else { 0x00 };
        let fin = if at == last { 0x80 } else { 0x00 };
        let ping = if at == last { Vec::new() } else { frame(PING, &[u8::try_from(at).unwrap()]) };
        [frame(opcode | fin, &[*byte]), ping].concat()
    });
    pieces.collect()
}

#[tokio::test]
async fn a_frame_may_come_in_one_piece_in_many_over_messages_and_byte_by_byte() {
    let gateway = Gateway::start().await;
    let (start, end) = REFUSED.split_at(7);
    let two_messages = [frame(BINARY, start), frame(TEXT, end)].concat();
    for bytes in [frame(TEXT, REFUSED), frame(BINARY, REFUSED), two_messages] {
        for piece in [1, bytes.len()] {
            let mut client = Client::connect(gateway.address).await;
            for piece in bytes.chunks(piece) {
                client.send(piece).await;
            }
            assert!(client.error().await.contains("\nreceipt-id:r-1\n"));
            assert_eq!(client.closed().await, 4400);
        }
    }
}

#[tokio::test]
async fn a_frame_larger_than_what_is_read_at_once_comes_through_in_any_messages() {
    let gateway = Gateway::start().await;
    let body = "x".repeat(200_000);
    let send = format!("SEND\ndestination:/x\nreceipt:r-2\ncontent-length:{}\n\n{body}\0", body.len());
    let in_messages: Vec<u8> = send.as_bytes().chunks(1000).flat_map(|part| frame(TEXT, part)).collect();
    for bytes in [frame(TEXT, send.as_bytes()), in_messages] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&bytes).await;
        let error = client.error().await;
        assert!(error.contains("\nreceipt-id:r-2\n") && error.contains("CONNECT"), "{error}");
    }
}

#[tokio::test]
async fn pings_between_the_fragments_of_a_message_are_answered_in_order() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address).await;
    client.send(&in_pieces(REFUSED)).await;
    for at in 0..REFUSED.len() - 1 {
        assert_eq!(client.next().await, Some((PONG, vec![u8::try_from(at).unwrap()])));
    }
    client.error().await;
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code_and_the_connection_ends() {
    let gateway = Gateway::start().await;
    for (payload, code) in [(&1001_u16.to_be_bytes()[..], 1001), (&4000_u16.to_be_bytes(), 4000), (&[], 1000)] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&frame(CLOSE, payload)).await;
        assert_eq!(client.closed().await, code);
    }
}

#[tokio::test]
async fn breaches_of_the_protocol_get_an_error_and_the_close_code_of_the_rfc() {
    let gateway = Gateway::start().await;
    let unmasked = [TEXT, 0x01, b'x'];
    let huge = [&[BINARY, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    for (bytes, code) in [
        (unmasked.to_vec(), 1002),
        (frame(0x83, b""), 1002),
        (frame(0xc1, b"x"), 1002),
        (frame(0x09, b""), 1002),
        (frame(0x80, b"nothing to be continued"), 1002),
        ([frame(0x01, b"a"), frame(TEXT, b"b")].concat(), 1002),
        (frame(CLOSE, &1005_u16.to_be_bytes()), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(0x01, b"\xff"), 1007),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (huge, 1009),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&bytes).await;
        assert!(client.error().await.contains("\ncode:protocol_error\n"), "{bytes:x?}");
        assert_eq!(client.closed().await, code, "{bytes:x?}");
    }
}

fn deflated(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.flush().unwrap();
    let mut out = encoder.get_ref().clone();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

fn inflated(payload: &[u8]) -> String {
    // The tail that is left out on the wire, and a last block so that the decoder sees the end.
    let whole = [payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut text = String::new();
    DeflateDecoder::new(&whole[..]).read_to_string(&mut text).unwrap();
    text
}

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

#[tokio::test]
async fn compression_is_spoken_in_both_directions_where_it_was_asked_for() {
    let gateway = Gateway::with(&[("WEBSOCKET__COMPRESSION_MIN", "1B")]).await;
    let mut client = Client::ask(gateway.address, DEFLATE).await;
    let agreed =
        "\r\nsec-websocket-extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
    assert!(client.head.contains(agreed), "{}", client.head);
    client.send(&frame(TEXT | COMPRESSED, &deflated(REFUSED))).await;
    let (first, payload) = client.next().await.unwrap();
    assert_eq!(first, TEXT | COMPRESSED);
    assert!(inflated(&payload).contains("\nreceipt-id:r-1\n"));
    assert_eq!(client.closed().await, 4400);

    // Not compressed, though it could be.
    let mut client = Client::ask(gateway.address, DEFLATE).await;
    client.send(&frame(TEXT, REFUSED)).await;
    assert_eq!(client.next().await.unwrap().0, TEXT | COMPRESSED);

    let mut client = Client::connect(gateway.address).await;
    client.send(&frame(TEXT, REFUSED)).await;
    client.error().await;
}

#[tokio::test]
async fn a_message_that_inflates_without_end_is_cut_at_the_limit_and_the_gateway_lives_on() {
    let gateway = Gateway::start().await;
    // Line ends are heart-beats: nothing but the limit stops them.
    let bomb = frame(TEXT | COMPRESSED, &deflated(&vec![b'\n'; 64 << 20]));
    assert!(bomb.len() < 100 << 10, "{} bytes", bomb.len());
    for _ in 0..3 {
        let mut client = Client::ask(gateway.address, DEFLATE).await;
        client.send(&bomb).await;
        client.error().await;
        assert_eq!(client.closed().await, 1009);
    }
    let mut client = Client::connect(gateway.address).await;
    client.send(&frame(PING, b"?")).await;
    assert_eq!(client.next().await, Some((PONG, b"?".to_vec())));
}

#[tokio::test]
async fn an_operator_may_forbid_compression() {
    let gateway = Gateway::with(&[("WEBSOCKET__COMPRESSION", "false")]).await;
    let mut client = Client::ask(gateway.address, DEFLATE).await;
    assert!(!client.head.contains("sec-websocket-extensions"), "{}", client.head);
    client.send(&frame(TEXT | COMPRESSED, &deflated(REFUSED))).await;
    client.error().await;
    assert_eq!(client.closed().await, 1002);
}

#[tokio::test]
async fn subprotocols_are_chosen_in_the_clients_order() {
    let gateway = Gateway::start().await;
    let client = Client::ask(gateway.address, "Sec-WebSocket-Protocol: x, v11.stomp, v12.stomp\r\n").await;
    assert!(client.head.contains("\r\nsec-websocket-protocol: v11.stomp\r\n"), "{}", client.head);
    assert!(client.head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
}
