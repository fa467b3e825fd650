//! CONNECT, and `/app/token`.

use std::time::Duration;

use chassis::jwt::TokenError;
use proto::Code;
use tokio::time::Instant;

use super::{Machine, Output, Phase, Verified};
use crate::{
    disconnect::Disconnect,
    refusal::Refusal,
    session::frames::{self, About},
    stomp::{Connect, Frame, Verb, Version},
};

impl Machine {
    /// Ids are kept: they must not cost more than they are worth.
    pub(super) fn check_ids(&self, frame: &Frame) -> Option<Disconnect> {
        let max = self.settings.id;
        let long = |name: &&str| frame.headers.get(name).is_some_and(|id| id.len() > max);
        let name = ["id", "receipt", "transaction", "device-id"].into_iter().find(long)?;
        let receipt = frame.headers.get("receipt").map(str::to_owned);
        Some(Disconnect::protocol(format!("the header {name} is longer than {max} bytes")).receipt(receipt))
    }

    /// Before anything else is looked at in a CONNECT: whatever is said of it is written as its version has it.
    pub(super) fn negotiate(&mut self, frame: &Frame) -> Option<Disconnect> {
        if !matches!((&self.phase, frame.verb), (Phase::Opening { .. }, Verb::Connect | Verb::Stomp)) {
            return None;
        }
        let offered = frame.headers.get("accept-version");
        match Version::negotiate(offered, self.subprotocol) {
            Some(version) => {
                self.version = version;
                None
            }
            None => {
                let receipt = frame.headers.get("receipt").map(str::to_owned);
                Some(Disconnect::no_common_version(offered).receipt(receipt))
            }
        }
    }

    pub(super) fn connect(&mut self, connect: Connect) {
        let receipt = &connect.receipt;
        let Some(token) = connect.token.clone() else {
            let message = "CONNECT needs an access token, as Authorization: Bearer or as passcode";
            let end = Disconnect::unauthenticated(Code::Unauthenticated, message);
            return self.end(end.receipt(receipt.clone()));
        };
        self.phase = Phase::Verifying { connect };
        self.outputs.put(Output::Verify { token });
    }

    pub(super) fn verified(&mut self, result: Result<Verified, TokenError>, now: Instant) {
        if let Some(receipt) = self.renewing.take() {
            return self.renewed(result, receipt, now);
        }
        let Phase::Verifying { connect } = &mut self.phase else { return };
        // 1.0 knows no heart-beats.
        let heart_beat = if self.version > Version::V1_0 { connect.heart_beat } else { (0, 0) };
        let (device_id, receipt) = (connect.device_id.take(), connect.receipt.take());
        self.phase = Phase::Open;
        let verified = match result {
            Ok(verified) => verified,
            Err(error) => {
                let end = Disconnect::unauthenticated(error.code(), error.to_string());
                return self.end(end.receipt(receipt));
            }
        };
        if !verified.admitted {
            let end = Disconnect::too_many_connections(self.settings.connections_per_user);
            return self.end(end.receipt(receipt));
        }
        self.user = verified.user;
        self.accept(&verified, now);
        let (can, wants) = heart_beat;
        let interval = |ours: Duration, theirs: u32| {
            (!ours.is_zero() && theirs > 0).then(|| ours.max(Duration::from_millis(theirs.into())))
        };
        self.beat_out = interval(self.settings.heart_beat_send, wants);
        self.beat_in = interval(self.settings.heart_beat_receive, can);
        self.received_at = now;
        let offered = [self.settings.heart_beat_send, self.settings.heart_beat_receive].map(|d| d.as_millis() as u32);
        let connected = frames::connected(self.version, &self.id, self.user, (offered[0], offered[1]));
        self.outputs.put(Output::Opened { user: self.user, version: self.version, device_id });
        self.outputs.put(Output::Write(connected));
    }

    fn renewed(&mut self, result: Result<Verified, TokenError>, receipt: Option<String>, now: Instant) {
        let about = About { receipt: receipt.clone(), ..About::default() };
        match result {
            Ok(verified) if verified.user == self.user => {
                self.accept(&verified, now);
                self.receipt(receipt);
            }
            Ok(_) => {
                let message = "the new token is of another subject; open another connection for it";
                self.refuse(&Refusal::new(Code::SpoofedSender, message), about);
            }
            Err(error) => self.refuse(&Refusal::new(error.code(), error.to_string()), about),
        }
    }

    fn accept(&mut self, verified: &Verified, now: Instant) {
        self.expires_at = Some(now + verified.expires_in);
        (self.may_read, self.may_write) = (verified.may_read, verified.may_write);
    }
}
