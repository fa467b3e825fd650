//! Frames from a description, so that masks, lengths and compression come out right, or wrong on purpose.
//!
//! A description is a list of `[first byte of the frame, how, length, payload..]`. What `how` says, from bit 0 on:
//! compress the payload; split it into two frames with a ping between them; no mask; a length that is too long a form;
//! then two bits for how often the payload is repeated (1, 16 or 260 times), and two for how well it is compressed.

use flate2::{Compress, Compression, FlushCompress};

use super::super::client_frame::Form;

pub fn frames(mut description: &[u8], seed: u8) -> Vec<u8> {
    let mut out = Vec::new();
    while let [first, how, len, rest @ ..] = description {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        description = rest;
        let mut payload = payload.repeat([1, 16, 1, 260][usize::from(how >> 4 & 3)]);
        if how & 1 != 0 {
            payload = compress(&payload, Compression::new([1, 6, 0, 9][usize::from(how >> 6)]));
        }
        let form = Form { mask: (how & 4 == 0).then_some([seed, 0, *len, !seed]), long: how & 8 != 0 };
        if how & 2 == 0 {
            form.push(*first, &payload, &mut out);
            continue;
        }
        let (start, end) = payload.split_at(payload.len() * usize::from(seed) / 256);
        form.push(first & 0x7f, start, &mut out);
        form.push(0x89, b"?", &mut out);
        form.push(first & 0x80, end, &mut out);
    }
    out
}

/// As a sender does it (RFC 7692, section 7.2.1).
fn compress(payload: &[u8], level: Compression) -> Vec<u8> {
    let mut compress = Compress::new(level, false);
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 8 + 256);
    if compress.compress_vec(payload, &mut out, FlushCompress::Sync).is_err() {
        return Vec::new();
    }
    if out.ends_with(&[0, 0, 0xff, 0xff]) {
        out.truncate(out.len() - 4);
    }
    out
}
