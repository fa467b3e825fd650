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

use super::sockjs::{self, json};
use crate::websocket::{Control, Decoder, Fault, Step};

/// The shared read buffer, bytes.
const SHARED_BUFFER: usize = 64 * 1024;
/// So much is decoded before what came is looked at, bytes; compressed messages may be many times what was read. What
/// the buffer holds already does not count: it may be a frame that is larger, and wants its end.
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
    /// What came is no SockJS: the connection is cut, without a word.
    Garbled,
}

/// The reading half of a client's transport.
#[derive(Debug)]
pub enum Inlet {
    WebSocket(WebSocket),
    /// STOMP in the strings of SockJS messages.
    SockJsWebSocket(WebSocket, BytesMut),
    /// What the client's HTTP requests bring.
    SockJs(sockjs::Mail),
}

/// A WebSocket that is read.
#[derive(Debug)]
pub struct WebSocket {
    socket: OwnedReadHalf,
    decoder: Decoder,
    /// Read, but not decoded yet. Mostly empty.
    left: BytesMut,
}

impl WebSocket {
    /// `left`: what was read behind the handshake already.
    pub fn new(socket: OwnedReadHalf, decoder: Decoder, left: Bytes) -> Self {
        Self { socket, decoder, left: left.into() }
    }
}

impl Inlet {
    /// Messages of a SockJS WebSocket, collected one by one.
    pub fn sockjs(websocket: WebSocket) -> Self {
        Inlet::SockJsWebSocket(websocket, BytesMut::new())
    }

    /// Reads once and appends what the client has sent to `buffer`. Can be dropped at any time without loss.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Received> {
        match self {
            Inlet::WebSocket(websocket) => websocket.poll(cx, |websocket, input| websocket.decode(input, buffer)),
            Inlet::SockJsWebSocket(websocket, message) => {
                websocket.poll(cx, |websocket, input| websocket.decode_sockjs(input, message, buffer))
            }
            Inlet::SockJs(mail) => {
                mail.poll(cx, buffer).map(|came| if came { Received::Data } else { Received::Closed(None) })
            }
        }
    }
}

impl WebSocket {
    fn poll(&mut self, cx: &mut Context<'_>, decode: impl FnOnce(&mut Self, &mut [u8]) -> Received) -> Poll<Received> {
        if !self.left.is_empty() {
            let mut left = std::mem::take(&mut self.left);
            return Poll::Ready(decode(self, &mut left));
        }
        SHARED.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared);
            let result = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read));
            match (result, read.filled_mut()) {
                (Err(_), _) | (Ok(()), []) => Poll::Ready(Received::Closed(None)),
                (Ok(()), filled) => Poll::Ready(decode(self, filled)),
            }
        })
    }

    fn decode(&mut self, input: &mut [u8], buffer: &mut BytesMut) -> Received {
        // What is there already may be a frame that goes on: more must always come.
        let (mut at, enough) = (0, buffer.len() + ENOUGH);
        while at < input.len() && buffer.len() < enough {
            match self.decoder.decode(&mut input[at..], buffer) {
                Ok((used, step)) => {
                    at += used;
                    let Some(Step::Control(control)) = step else { continue };
                    self.left.extend_from_slice(&input[at..]);
                    return control.into();
                }
                Err(fault) => return Received::Broken(fault),
            }
        }
        self.left.extend_from_slice(&input[at..]);
        Received::Data
    }

    /// `message` is the part of a message that has come; the decoder bounds it.
    fn decode_sockjs(&mut self, input: &mut [u8], message: &mut BytesMut, buffer: &mut BytesMut) -> Received {
        // What is there already may be a frame that goes on: more must always come.
        let (mut at, enough) = (0, buffer.len() + ENOUGH);
        while at < input.len() && buffer.len() < enough {
            match self.decoder.decode(&mut input[at..], message) {
                Ok((used, step)) => {
                    at += used;
                    match step {
                        None => {}
                        Some(Step::Message) => {
                            let whole = std::mem::take(message);
                            // Empty ones are to be ignored.
                            if !whole.is_empty() && json::read(&whole, json::Accept::ArrayOrString, buffer).is_err() {
                                return Received::Garbled;
                            }
                        }
                        Some(Step::Control(control)) => {
                            self.left.extend_from_slice(&input[at..]);
                            return control.into();
                        }
                    }
                }
                Err(fault) => return Received::Broken(fault),
            }
        }
        self.left.extend_from_slice(&input[at..]);
        Received::Data
    }
}

impl From<Control> for Received {
    fn from(control: Control) -> Self {
        match control {
            Control::Ping(payload) => Received::Ping(payload),
            Control::Pong => Received::Pong,
            Control::Close(code) => Received::Closed(code),
        }
    }
}
