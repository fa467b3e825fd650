//! Reads what is stored once everybody has left, and has the run judged.

use std::{path::Path, time::Duration};

use anyhow::Result;
use e2e::endpoints::Endpoints;

use crate::{
    faults::{GROUP, KEY_PREFIX, TOPICS},
    truth::{self, Sources},
    verdict::{self, Verdict},
};

/// For the gateways to forget their clients: above `hub.linger`, and also their lease, for those that had none.
const SETTLE: Duration = Duration::from_secs(15);

/// Says the verdict on the terminal, too.
pub async fn judge(endpoints: &Endpoints, folder: &Path) -> Result<Verdict> {
    let sources = Sources {
        mysql: endpoints.mysql.clone(),
        redis: endpoints.redis.clone(),
        key_prefix: KEY_PREFIX.to_owned(),
        kafka: endpoints.kafka.clone(),
        group: GROUP.to_owned(),
        topics: TOPICS.map(str::to_owned).into(),
        gateways: endpoints.gateway_admin()?,
        settle: SETTLE,
    };
    truth::collect(folder, &sources).await?;
    let verdict = verdict::judge(folder)?;
    print!("\n{verdict}");
    println!("\n{}", verdict::page_file(folder).display());
    Ok(verdict)
}
