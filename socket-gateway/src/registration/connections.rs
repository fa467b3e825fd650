//! The connections of this gateway, registered with core.
//!
//! One task holds what should be registered and makes one call at a time, with all that has changed since the last.
//! Sessions only tell it; a core that is away delays registration and nothing else. A new incarnation registers all
//! again, and so does core's answer to the regular ping for those it does not know.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use chassis::Backoff;
use prost_types::Timestamp;
use proto::{
    GatewayRef,
    rpc::v1::{
        Connection, RegisterConnectionsRequest, UnregisterConnectionsRequest, UpdateLastPingRequest,
        connection_manager_client::ConnectionManagerClient, gateway_service_client::GatewayServiceClient,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Lives;
use crate::{refusal::Refusal, upstream::Endpoints};

/// Changes that wait to be noted; the task notes them at once.
const QUEUE: usize = 4096;
/// Every user is in it.
const DEFAULT_WORKSPACE: i64 = 1;

/// A connection to be registered.
#[derive(Clone, Debug)]
pub struct Registered {
    pub id: String,
    pub user: i64,
    pub device_id: Option<String>,
}

#[derive(Debug)]
enum Change {
    Register(Registered),
    Unregister(String),
}

/// Where sessions tell of themselves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections(mpsc::Sender<Change>);

impl Connections {
    pub async fn register(&self, connection: Registered) {
        let _ = self.0.send(Change::Register(connection)).await;
    }

    pub async fn unregister(&self, id: String) {
        let _ = self.0.send(Change::Unregister(id)).await;
    }
}

/// One call to core.
#[derive(Clone, Debug)]
enum Call {
    Register(Vec<Connection>),
    Unregister(Vec<String>),
    Ping(Vec<String>),
}

pub struct ConnectionsTask {
    changes: mpsc::Receiver<Change>,
    endpoints: Endpoints,
    lives: Lives,
    batch: usize,
    ping_interval: Duration,
    all: HashMap<String, (Registered, Timestamp)>,
    to_register: VecDeque<String>,
    to_unregister: VecDeque<String>,
    /// Connections of the current round that are still to be pinged.
    to_ping: VecDeque<String>,
    registered_as: Option<GatewayRef>,
}

impl ConnectionsTask {
    pub fn new(endpoints: Endpoints, lives: Lives, batch: usize, ping_interval: Duration) -> (Connections, Self) {
        let (sender, changes) = mpsc::channel(QUEUE);
        let task = Self {
            changes,
            endpoints,
            lives,
            batch,
            ping_interval,
            all: HashMap::new(),
            to_register: VecDeque::new(),
            to_unregister: VecDeque::new(),
            to_ping: VecDeque::new(),
            registered_as: None,
        };
        (Connections(sender), task)
    }

    /// Runs until `stop`; what is to be unregistered then is tried once.
    pub async fn run(mut self, stop: CancellationToken) {
        self.serve(&stop).await;
        while let Ok(change) = self.changes.try_recv() {
            self.note(change);
        }
        let gateway = self.registered_as.take();
        while let Some(gateway) = gateway.as_ref().filter(|_| !self.to_unregister.is_empty()) {
            let call = Call::Unregister(take(&mut self.to_unregister, self.batch));
            if let Err(refusal) = make(&self.endpoints, gateway, call).await {
                warn!(%refusal, "connections could not be unregistered; they are forgotten with the lease");
                return;
            }
        }
    }

    async fn serve(&mut self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut not_before = Instant::now();
        let mut ping_at = Instant::now() + self.ping_interval;
        loop {
            let live = self.lives.borrow_and_update().as_ref().map(|live| live.gateway.clone());
            self.take_incarnation(live.as_ref());
            let is_live = live.is_some();
            let call = live.filter(|_| Instant::now() >= not_before).and_then(|gateway| self.next_call(&gateway));
            if let Some((gateway, call)) = call {
                match make(&self.endpoints, &gateway, call.clone()).await {
                    Ok(unknown) => {
                        backoff.reset();
                        self.to_register.extend(unknown.into_iter().filter(|id| self.all.contains_key(id)));
                    }
                    Err(refusal) => {
                        debug!(%refusal, "connections could not be registered; trying again");
                        not_before = Instant::now() + backoff.next_delay();
                        self.take_back(call);
                    }
                }
                while let Ok(change) = self.changes.try_recv() {
                    self.note(change);
                }
                if stop.is_cancelled() {
                    return;
                }
                continue;
            }
            // Without an incarnation nothing can be done until there is one.
            let waits = is_live && !self.is_idle();
            let wake = if waits { ping_at.min(not_before.max(Instant::now())) } else { ping_at };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.lives.changed() => if changed.is_err() { return },
                change = self.changes.recv() => match change {
                    Some(change) => self.note(change),
                    None => return,
                },
                () = sleep_until(wake) => if Instant::now() >= ping_at {
                    ping_at += self.ping_interval;
                    self.to_ping = self.all.keys().cloned().collect();
                },
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.to_register.is_empty() && self.to_unregister.is_empty() && self.to_ping.is_empty()
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Register(connection) => {
                self.to_register.push_back(connection.id.clone());
                self.all.insert(connection.id.clone(), (connection, crate::upstream::now()));
            }
            Change::Unregister(id) => {
                if self.all.remove(&id).is_some() {
                    self.to_unregister.push_back(id);
                }
            }
        }
    }

    fn take_incarnation(&mut self, live: Option<&GatewayRef>) {
        if let Some(gateway) = live
            && self.registered_as.as_ref() != Some(gateway)
        {
            self.registered_as = Some(gateway.clone());
            self.to_register = self.all.keys().cloned().collect();
        }
    }

    fn next_call(&mut self, gateway: &GatewayRef) -> Option<(GatewayRef, Call)> {
        let call = if !self.to_register.is_empty() {
            let ids = take(&mut self.to_register, self.batch);
            let known = ids.iter().filter_map(|id| self.all.get(id));
            Call::Register(known.map(|(connection, at)| to_wire(connection, *at, gateway)).collect())
        } else if !self.to_unregister.is_empty() {
            Call::Unregister(take(&mut self.to_unregister, self.batch))
        } else if !self.to_ping.is_empty() {
            Call::Ping(take(&mut self.to_ping, self.batch))
        } else {
            return None;
        };
        Some((gateway.clone(), call))
    }

    /// What a failed call was for is to be done again; a ping comes again by itself.
    fn take_back(&mut self, call: Call) {
        match call {
            Call::Register(connections) => {
                self.to_register.extend(connections.into_iter().map(|connection| connection.connection_id));
            }
            Call::Unregister(ids) => self.to_unregister.extend(ids),
            Call::Ping(_) => {}
        }
    }
}

fn take(queue: &mut VecDeque<String>, max: usize) -> Vec<String> {
    queue.drain(..queue.len().min(max)).collect()
}

fn to_wire(connection: &Registered, at: Timestamp, gateway: &GatewayRef) -> Connection {
    Connection {
        connection_id: connection.id.clone(),
        user_id: connection.user,
        gateway_id: gateway.gateway.clone(),
        incarnation: gateway.incarnation.clone(),
        device_id: connection.device_id.clone().unwrap_or_default(),
        connected_at: Some(at),
        last_ping_at: Some(crate::upstream::now()),
        workspace_id: DEFAULT_WORKSPACE,
    }
}

/// Makes a call; a ping answers with the connections that core does not know.
async fn make(endpoints: &Endpoints, gateway: &GatewayRef, call: Call) -> Result<Vec<String>, Refusal> {
    let GatewayRef { gateway: gateway_id, incarnation } = gateway.clone();
    match call {
        Call::Register(connections) => {
            let message = RegisterConnectionsRequest { connections };
            endpoints
                .call(0, message, |channel, request| async move {
                    GatewayServiceClient::new(channel).register_connections(request).await
                })
                .await?;
            Ok(Vec::new())
        }
        Call::Unregister(connection_ids) => {
            let message = UnregisterConnectionsRequest { gateway_id, incarnation, connection_ids };
            endpoints
                .call(0, message, |channel, request| async move {
                    GatewayServiceClient::new(channel).unregister_connections(request).await
                })
                .await?;
            Ok(Vec::new())
        }
        Call::Ping(connection_ids) => {
            let message = UpdateLastPingRequest { gateway_id, incarnation, connection_ids };
            let answer = endpoints
                .call(0, message, |channel, request| async move {
                    ConnectionManagerClient::new(channel).update_last_ping(request).await
                })
                .await?;
            Ok(answer.unknown_connection_ids)
        }
    }
}
