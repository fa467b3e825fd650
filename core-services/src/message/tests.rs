use proto::{Claims, Code, rpc::v1::CreateMessageRequest};

use super::*;
use crate::error::Error;

fn caller(user: Option<i64>, scope: &str) -> Caller {
    Caller {
        claims: Claims {
            iss: String::new(),
            sub: user.map_or("gateway".to_owned(), |id| id.to_string()),
            aud: String::new(),
            exp: 0,
            iat: 0,
            nbf: None,
            jti: String::new(),
            scope: scope.to_owned(),
            client_id: user.is_none().then(|| "gateway".to_owned()),
            sid: None,
        },
    }
}

fn limits() -> config::Messages {
    config::Messages {
        max_body: 10,
        writers: 1,
        max_batch: 1,
        max_batch_bytes: 10,
        pace: config::Pace { interval: std::time::Duration::ZERO, from_messages: 1 },
        writer_queue: 1,
        max_in_flight: 1,
    }
}

fn request() -> CreateMessageRequest {
    CreateMessageRequest { conversation_id: 7, body: "hello".into(), ..CreateMessageRequest::default() }
}

fn code(caller: &Caller, request: CreateMessageRequest) -> Option<Code> {
    match validate(caller, request, &limits(), None) {
        Ok(_) => None,
        Err(Error::Refused(refusal)) => Some(refusal.code),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_sender_is_the_subject_of_the_token() {
    let alice = caller(Some(1), "messages:write");
    assert_eq!(code(&alice, request()), None);
    assert_eq!(code(&alice, CreateMessageRequest { sender_id: 1, ..request() }), None);
    assert_eq!(code(&alice, CreateMessageRequest { sender_id: 2, ..request() }), Some(Code::SpoofedSender));
    assert_eq!(code(&caller(Some(1), "messages:read"), request()), Some(Code::Forbidden));
}

#[test]
fn only_a_service_with_the_scope_names_a_sender() {
    let named = CreateMessageRequest { sender_id: 2, ..request() };
    assert_eq!(code(&caller(None, "messages:send_as"), named.clone()), None);
    assert_eq!(code(&caller(None, "connections:write"), named), Some(Code::SpoofedSender));
    assert_eq!(code(&caller(None, "messages:send_as"), request()), Some(Code::InvalidBody));
}

#[test]
fn what_is_out_of_bounds_is_refused_by_its_name() {
    let alice = caller(Some(1), "messages:write");
    let refused = |change: fn(&mut CreateMessageRequest)| {
        let mut request = request();
        change(&mut request);
        code(&alice, request)
    };
    assert_eq!(refused(|r| r.body.clear()), Some(Code::InvalidBody));
    assert_eq!(refused(|r| r.body = "x".repeat(11)), Some(Code::BodyTooLarge));
    assert_eq!(refused(|r| r.kind = "system".into()), Some(Code::InvalidBody));
    assert_eq!(refused(|r| r.conversation_id = 0), Some(Code::NotFound));
    assert_eq!(refused(|r| r.attachment_ids.push(1)), Some(Code::InvalidBody));
    assert_eq!(refused(|r| r.client_message_id = "x".repeat(129)), Some(Code::InvalidBody));
    assert_eq!(refused(|r| r.thread_root_id = -1), Some(Code::NotFound));
}

#[test]
fn a_malformed_traceparent_is_not_passed_on() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert!(is_traceparent(good));
    assert!(!is_traceparent("00-xyz-00f067aa0ba902b7-01"));
    assert!(!is_traceparent(&good.to_uppercase()));
}
