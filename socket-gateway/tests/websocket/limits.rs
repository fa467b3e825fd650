//! How many connections there may be, from where, and how long half of one is held.

use crate::{
    client::{Client, PING, PONG, frame},
    gateway::{DEADLINE, Gateway},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

fn assert_refused(client: &Client, status: &str) {
    assert!(client.head.starts_with(&format!("http/1.1 {status} ")), "{}", client.head);
    assert!(client.head.contains("\r\nretry-after: 5\r\n"), "{}", client.head);
}

/// Tries until a place that was given back is there.
async fn connect_again(gateway: &Gateway) -> Client {
    let trying = async {
        loop {
            let client = Client::ask(gateway.address, "").await;
            if client.head.starts_with("http/1.1 101 ") {
                return client;
            }
        }
    };
    timeout(DEADLINE, trying).await.expect("the place was not given back")
}

#[tokio::test]
async fn a_full_gateway_refuses_with_a_hint_and_takes_the_next_when_one_has_gone() {
    let gateway = Gateway::with(&[("LIMITS__CONNECTIONS", "2")]).await;
    let first = Client::connect(gateway.address).await;
    let mut second = Client::connect(gateway.address).await;
    assert_refused(&Client::ask(gateway.address, "").await, "503");
    drop(first);
    connect_again(&gateway).await;
    second.send(&frame(PING, b"")).await;
    assert_eq!(second.next().await, Some((PONG, vec![])), "the neighbour notices nothing");
}

#[tokio::test]
async fn an_address_may_have_so_many_connections_whatever_it_says_of_itself() {
    let gateway = Gateway::with(&[("LIMITS__CONNECTIONS_PER_ADDRESS", "1")]).await;
    let first = Client::connect(gateway.address).await;
    assert_refused(&Client::ask(gateway.address, "X-Forwarded-For: 10.1.1.1\r\n").await, "429");
    drop(first);
    connect_again(&gateway).await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_clients_own_addresses_count() {
    let settings = [("LIMITS__CONNECTIONS_PER_ADDRESS", "1"), ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]")];
    let gateway = Gateway::with(&settings).await;
    let from = |address| Client::ask(gateway.address, address);
    // Only the last one is the proxy's word.
    let first = from("X-Forwarded-For: 10.9.9.9, 10.1.1.1\r\n").await;
    let second = from("X-Forwarded-For: 10.1.1.2\r\n").await;
    assert!(first.head.starts_with("http/1.1 101 ") && second.head.starts_with("http/1.1 101 "));
    assert_refused(&from("X-Forwarded-For: 10.8.8.8, 10.1.1.1\r\n").await, "429");
}

#[tokio::test]
async fn half_a_handshake_and_a_client_without_connect_are_not_held() {
    let gateway = Gateway::with(&[("SERVER__HEADER_TIMEOUT", "300ms"), ("SESSION__CONNECT_TIMEOUT", "300ms")]).await;
    let mut half = TcpStream::connect(gateway.address).await.unwrap();
    half.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    timeout(DEADLINE, half.read_to_end(&mut rest)).await.expect("it is held").unwrap();

    let mut silent = Client::connect(gateway.address).await;
    let error = silent.error().await;
    assert!(error.contains("\ncode:unauthenticated\n") && error.contains("no CONNECT within 300ms"), "{error}");
    assert_eq!(silent.closed().await, 4001);
}

#[tokio::test]
async fn an_origin_that_is_not_on_the_list_is_forbidden() {
    let gateway = Gateway::with(&[("WEBSOCKET__ALLOWED_ORIGINS", "[\"https://chat.example\"]")]).await;
    for (origin, status) in [("https://chat.example", "101"), ("https://evil.example", "403"), ("null", "403")] {
        let client = Client::ask(gateway.address, &format!("Origin: {origin}\r\n")).await;
        assert!(client.head.starts_with(&format!("http/1.1 {status} ")), "{origin}: {}", client.head);
    }
}
