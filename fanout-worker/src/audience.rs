//! Round trip 1 of a batch: who is interested in its keys. Read from the primary each time, never cached: a gateway
//! that has announced its interest must be seen by every record that is committed after it.

use proto::{GatewayRef, Keys};
use redis::{Pipeline, RedisResult, from_redis_value};
use tracing::{error, warn};

use crate::{
    metrics::Metrics,
    redis_link::{RedisLink, is_wrong_type},
    route::{Audience, Interest},
};

/// Reads the interest sets of `interests`. An error of any command fails the whole, except for a key of another type
/// than ours: that is nobody's interest, logged and counted.
pub async fn read(link: &RedisLink, keys: &Keys, metrics: &Metrics, interests: &[Interest]) -> RedisResult<Audience> {
    let mut pipeline = Pipeline::with_capacity(interests.len());
    for interest in interests {
        pipeline.cmd("SMEMBERS").arg(interest.key(keys));
    }
    let mut audience = Audience::with_capacity(interests.len());
    for (interest, answer) in interests.iter().zip(link.run(pipeline).await?) {
        let members: Vec<String> = match answer {
            Ok(value) => from_redis_value(value)?,
            Err(error) if is_wrong_type(&error) => {
                metrics.refused_keys.inc();
                error!(redis.key = interest.key(keys), %error, "an interest key is no set; delete it");
                continue;
            }
            Err(error) => return Err(error),
        };
        let gateways = members.iter().filter_map(|member| gateway(*interest, member)).collect();
        audience.insert(*interest, gateways);
    }
    Ok(audience)
}

fn gateway(interest: Interest, member: &str) -> Option<GatewayRef> {
    member.parse().inspect_err(|error| warn!(?interest, %error, "an interest set has a member that is not ours")).ok()
}
