//! What `fanout --direct` needs besides clients: a conversation that no gateway remembers, and where its seqs stand.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{crowd, engine::Direct, say};
use crate::endpoints::Endpoints;

/// The setting that must be longer than the run: a gateway that compared heads would find that core knows nothing
/// of what was fed.
const INTERVAL: &str = "socket-gateway.hub.compare_interval";
/// Gateways keep a conversation for `hub.linger` after its last subscription.
const FORGETTING: Duration = Duration::from_secs(15);

/// Refuses to run on a stack whose gateways would drop the entries, and waits until none remembers what an earlier
/// run fed.
pub async fn prepare(endpoints: &Endpoints, conversation: i64) -> Result<()> {
    ensure!(
        endpoints.overrides.iter().any(|setting| setting.starts_with(INTERVAL)),
        "--direct needs a stack that compares its heads with core's less often than the run is long: \
         `cargo xtask down`, then `cargo xtask up --release --detach --set {INTERVAL}=1h`"
    );
    let waiting = Instant::now();
    while !Direct::interested(&endpoints.redis, conversation)?.is_empty() {
        ensure!(
            waiting.elapsed() < FORGETTING,
            "a gateway still holds the conversation of an earlier run: `cargo xtask restart socket-gateway-1`, and the \
             other gateways alike (with a long compare_interval they seldom look for what they may forget)"
        );
        say("waiting until the gateways have forgotten the conversation");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// The epoch, and the conversation's last seq.
pub async fn position(endpoints: &Endpoints, conversation: i64) -> Result<(i64, i64)> {
    let mut mysql = crowd::connect(endpoints).await?;
    let found = sqlx::query_as("SELECT epoch, last_seq FROM cluster_state, conversations WHERE conversations.id = ?");
    Ok(found.bind(conversation).fetch_one(&mut mysql).await?)
}
