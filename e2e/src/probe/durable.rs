//! `probe durable`: see [`crate::durable`].

use anyhow::Result;

use crate::{
    durable::{self, Plan},
    endpoints::Endpoints,
};

pub async fn run(endpoints: &Endpoints, plan: &Plan) -> Result<()> {
    durable::run(endpoints, plan).await
}
