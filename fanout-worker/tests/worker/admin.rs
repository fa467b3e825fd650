//! The routing view.

use chassis::http::get_json;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, Worker},
    gateway::Gateway,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_routing_view_names_the_gateways_of_every_conversation() {
    let bed = Bed::new().await;
    let (a, b) = (Gateway::start(&bed, "a").await, Gateway::start(&bed, "b").await);
    for conversation in 1..=30 {
        a.serve_conversation(conversation).await;
    }
    b.serve_conversation(7).await;
    let worker = Worker::start(bed.settings());
    worker.is_ready().await;

    let seven: Value = get_json(&format!("{}/routing/7", worker.admin)).await.unwrap();
    assert_eq!(seven, json!({ "conversation_id": "7", "gateways": [a.id.to_string(), b.id.to_string()] }));

    let (mut found, mut cursor) = (Vec::new(), Some("0".to_owned()));
    while let Some(at) = cursor {
        let page: Value = get_json(&format!("{}/routing?limit=10&cursor={at}", worker.admin)).await.unwrap();
        found.extend(page["items"].as_array().unwrap().iter().map(|item| item["conversation_id"].clone()));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
    }
    found.sort_by_key(|id| id.as_str().unwrap().parse::<i64>().unwrap());
    found.dedup();
    assert_eq!(found, (1..=30).map(|id| json!(id.to_string())).collect::<Vec<_>>());
    worker.stop().await;
    bed.remove().await;
}
