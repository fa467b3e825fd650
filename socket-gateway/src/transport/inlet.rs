//! What comes from one client: the reading half of its transport.
//!
//! A WebSocket is read into a buffer that all connections of a thread share, and decoded from there: a connection that is
//! idle, or sends whole frames, has no read buffer of its own.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::tcp::OwnedReadHalf,
};

use crate::websocket::{Control, Decoder, Fault, Step};

/// The shared read buffer, bytes.
const SHARED_BUFFER: usize = 64 * 1024;
/// So much is decoded before what came is looked at, bytes; compressed messages may be many times what was read.
const ENOUGH: usize = 64 * 1024;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHARED_BUFFER].into_boxed_slice());
}

/// Something that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Payload was appended to the buffer, maybe none.
    Data,
    /// To be answered with a pong.
    Ping(Bytes),
    Pong,
    /// The client has closed, with this code; `None`: it is gone, or gave none.
    Closed(Option<u16>),
    /// What came is no WebSocket, or larger than allowed.
    Broken(Fault),
}

/// The reading half of a client's transport.
#[derive(Debug)]
pub struct Inlet {
    socket: OwnedReadHalf,
    decoder: Decoder,
    /// Read, but not decoded yet. Mostly empty.
    left: BytesMut,
}

impl Inlet {
    /// `left`: what was read behind the handshake already.
    pub fn websocket(socket: OwnedReadHalf, decoder: Decoder, left: Bytes) -> Self {
        Self { socket, decoder, left: left.into() }
    }

    /// Reads once and appends what the client has sent to `buffer`. Can be dropped at any time without loss.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Received> {
        if !self.left.is_empty() {
            let mut left = std::mem::take(&mut self.left);
            return Poll::Ready(self.decode(&mut left, buffer));
        }
        SHARED.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared);
            let result = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read));
            match (result, read.filled_mut()) {
                (Err(_), _) | (Ok(()), []) => Poll::Ready(Received::Closed(None)),
                (Ok(()), filled) => Poll::Ready(self.decode(filled, buffer)),
            }
        })
    }

    fn decode(&mut self, input: &mut [u8], buffer: &mut BytesMut) -> Received {
        let mut at = 0;
        while at < input.len() && buffer.len() < ENOUGH {
            match self.decoder.decode(&mut input[at..], buffer) {
                Ok((used, step)) => {
                    at += used;
                    let Some(Step::Control(control)) = step else { continue };
                    self.left.extend_from_slice(&input[at..]);
                    return match control {
                        Control::Ping(payload) => Received::Ping(payload),
                        Control::Pong => Received::Pong,
                        Control::Close(code) => Received::Closed(code),
                    };
                }
                Err(fault) => return Received::Broken(fault),
            }
        }
        self.left.extend_from_slice(&input[at..]);
        Received::Data
    }
}
