//! Round trip 1 of a batch: who is interested in its keys. Read from the primary each time, never cached: a gateway
//! that has announced its interest must be seen by every record that is committed after it.

use std::str;

use proto::{GatewayRef, Keys, redis_keys::BadGatewayRef};
use redis::{Pipeline, RedisResult, Value, from_redis_value};
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
        let gateways = match answer {
            Ok(value) => gateways(*interest, value)?,
            Err(error) if is_wrong_type(&error) => {
                metrics.refused_keys.inc();
                error!(redis.key = interest.key(keys), %error, "an interest key is no set; delete it");
                continue;
            }
            Err(error) => return Err(error),
        };
        audience.insert(*interest, gateways);
    }
    Ok(audience)
}

/// The members of an interest set; those that are not ours are passed over.
fn gateways(interest: Interest, set: Value) -> RedisResult<Vec<GatewayRef>> {
    // Not as text: a single member that is none would fail the batch each time.
    let members: Vec<Vec<u8>> = from_redis_value(set)?;
    Ok(members.iter().filter_map(|member| gateway(interest, member)).collect())
}

fn gateway(interest: Interest, member: &[u8]) -> Option<GatewayRef> {
    let text = str::from_utf8(member).map_err(|_| BadGatewayRef(String::from_utf8_lossy(member).into_owned()));
    let parsed = text.and_then(str::parse);
    parsed.inspect_err(|error| warn!(?interest, %error, "an interest set has a member that is not ours")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_not_ours_are_passed_over() {
        let members: [&[u8]; 4] = [b"a:1", b"no incarnation", b"\xff:2", b"b:3"];
        let set = Value::Array(members.map(|member| Value::BulkString(member.to_vec())).into());
        let gateways = gateways(Interest::Conversation(7), set).unwrap();
        assert_eq!(gateways.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:3"]);
    }
}
