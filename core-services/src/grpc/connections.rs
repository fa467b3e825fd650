//! ConnectionManager.

use std::{collections::HashMap, sync::Arc};

use proto::{
    Code, EventType, GatewayRef, UserId, WorkspaceId,
    claims::SCOPE_CONNECTIONS_WRITE,
    rpc::v1::{
        self, GetConnectionsByUserRequest, GetConnectionsByUserResponse, GetOnlineUsersRequest, GetOnlineUsersResponse,
        Membership, OnlineUser, RegisterConnectionRequest, RegisterConnectionResponse, UnregisterConnectionRequest,
        UnregisterConnectionResponse, UpdateLastPingRequest, UpdateLastPingResponse,
        connection_manager_server::ConnectionManager,
    },
};
use tonic::{Request, Response, Status};

use super::{caller, timestamp_ms};
use crate::{
    app::App,
    connection::Connection,
    conversation::read::{self, Held},
    error::{Refusal, Result as Refusable, refuse},
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 500;
const DEFAULT_WORKSPACE: i64 = 1;

pub struct Connections(pub Arc<App>);

#[tonic::async_trait]
impl ConnectionManager for Connections {
    async fn register_connection(
        &self,
        request: Request<RegisterConnectionRequest>,
    ) -> Result<Response<RegisterConnectionResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_CONNECTIONS_WRITE)?;
        let connection = request.into_inner().connection.unwrap_or_default();
        let (user, id) = (UserId(connection.user_id), connection.connection_id.clone());
        let gateway =
            GatewayRef { gateway: connection.gateway_id.clone(), incarnation: connection.incarnation.clone() };
        let (epoch, over) = register(&self.0, vec![connection]).await?;
        if !over.is_empty() {
            let limit = self.0.config.connections.max_per_user;
            refuse(Code::TooManyConnections, format!("user {user} has {limit} connections, the most allowed"))?;
        }
        // Registered first, read after: what changes in between is told to the connection.
        match memberships(&self.0, user).await {
            Ok((user_seq, memberships)) => {
                Ok(Response::new(RegisterConnectionResponse { memberships, user_seq, epoch }))
            }
            Err(refused) => {
                // Who is not told of its memberships is not connected.
                unregister(&self.0, &gateway, &[id]).await?;
                Err(refused.into())
            }
        }
    }

    async fn unregister_connection(
        &self,
        request: Request<UnregisterConnectionRequest>,
    ) -> Result<Response<UnregisterConnectionResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_CONNECTIONS_WRITE)?;
        let request = request.into_inner();
        let gateway = GatewayRef { gateway: request.gateway_id, incarnation: request.incarnation };
        unregister(&self.0, &gateway, &[request.connection_id]).await?;
        Ok(Response::new(UnregisterConnectionResponse {}))
    }

    async fn update_last_ping(
        &self,
        request: Request<UpdateLastPingRequest>,
    ) -> Result<Response<UpdateLastPingResponse>, Status> {
        caller(&self.0, &request).await?.require_service(SCOPE_CONNECTIONS_WRITE)?;
        let request = request.into_inner();
        let gateway = GatewayRef { gateway: request.gateway_id, incarnation: request.incarnation };
        let now_ms = chassis::now_us() / 1000;
        let unknown = self.0.registry.ping_connections(&gateway, &request.connection_ids, now_ms).await?;
        Ok(Response::new(UpdateLastPingResponse { unknown_connection_ids: unknown }))
    }

    async fn get_connections_by_user(
        &self,
        request: Request<GetConnectionsByUserRequest>,
    ) -> Result<Response<GetConnectionsByUserResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let user = UserId(request.into_inner().user_id);
        match caller.claims.user_id() {
            Some(own) if own != user => refuse(Code::Forbidden, "a user sees their own connections only")?,
            Some(_) => {}
            None => caller.require(SCOPE_CONNECTIONS_WRITE)?,
        }
        let connections = self.0.registry.of_user(user).await?.into_iter().map(to_wire).collect();
        Ok(Response::new(GetConnectionsByUserResponse { connections }))
    }

    async fn get_online_users(
        &self,
        request: Request<GetOnlineUsersRequest>,
    ) -> Result<Response<GetOnlineUsersResponse>, Status> {
        let caller = caller(&self.0, &request).await?;
        let request = request.into_inner();
        // Everybody is in the one workspace that there is; a service sees any.
        if !caller.is_service() && request.workspace_id != DEFAULT_WORKSPACE {
            refuse(Code::Forbidden, format!("you are not a member of the workspace {}", request.workspace_id))?;
        }
        let offset = page_offset(&request.page_token)?;
        let size = match request.page_size as usize {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let (users, more) = self.0.registry.online(request.workspace_id, offset, size).await?;
        let users = users.into_iter().map(|user| OnlineUser {
            user_id: user.user_id.0,
            status: "online".to_owned(),
            last_seen_at: Some(timestamp_ms(user.last_seen_ms)),
            connections: user.connections,
        });
        let next_page_token = if more { (offset + size).to_string() } else { String::new() };
        Ok(Response::new(GetOnlineUsersResponse { users: users.collect(), next_page_token }))
    }
}

/// Where a page begins. No set of Redis has more members than 32 bits count, so every `next_page_token` is in range.
fn page_offset(token: &str) -> Refusable<usize> {
    if token.is_empty() {
        return Ok(0);
    }
    match token.parse::<u32>() {
        Ok(offset) => Ok(offset as usize),
        Err(_) => refuse(Code::InvalidBody, "page_token: expected a next_page_token or nothing"),
    }
}

/// Registers connections and tells of them; the epoch of now, and those that are above their user's limit.
pub(super) async fn register(app: &App, connections: Vec<v1::Connection>) -> Refusable<(i64, Vec<Connection>)> {
    let connections = connections.into_iter().map(from_wire).collect::<Refusable<Vec<_>>>()?;
    let epoch = read::epoch(&app.db).await?;
    let (registered, over) = app.registry.register(connections).await?;
    for connection in &registered {
        app.producer.connection(EventType::Connected, connection, epoch);
    }
    Ok((epoch, over))
}

/// What a connection of the user is told: their `user_seq`, and the memberships with their heads.
async fn memberships(app: &App, user: UserId) -> Refusable<(i64, Vec<Membership>)> {
    let held = Held::wait();
    let (mut states, locked) = read::user_states(&app.db, &[user], &HashMap::new(), held, held).await?;
    if !locked.is_empty() {
        return Err(read::busy().into());
    }
    let Some(state) = states.pop() else {
        return Err(Refusal::new(Code::NotFound, format!("there is no user {user}")).into());
    };
    let memberships = state.memberships.into_iter().map(|membership| {
        Ok(Membership {
            conversation_id: membership.conversation.0,
            head_seq: membership.head.ok_or_else(read::busy)?,
            joined_seq: membership.joined_seq,
            role: membership.role,
            read_seq: membership.read_seq,
            kind: membership.kind.as_str().to_owned(),
        })
    });
    Ok((state.user_seq, memberships.collect::<Refusable<_>>()?))
}

pub(super) async fn unregister(app: &App, gateway: &GatewayRef, ids: &[String]) -> Refusable<()> {
    let removed = app.registry.unregister(gateway, ids).await?;
    let epoch = read::epoch(&app.db).await?;
    for connection in &removed {
        app.producer.connection(EventType::Disconnected, connection, epoch);
    }
    Ok(())
}

fn from_wire(connection: v1::Connection) -> Refusable<Connection> {
    let named = [
        ("connection_id", &connection.connection_id),
        ("gateway_id", &connection.gateway_id),
        ("incarnation", &connection.incarnation),
    ];
    if let Some((field, _)) =
        named.iter().find(|(_, value)| value.is_empty() || value.contains(':') || value.len() > 128)
    {
        return refuse(Code::InvalidBody, format!("{field}: expected 1 to 128 bytes without ':'"));
    }
    let Ok(user_id) = UserId::try_from(connection.user_id) else {
        return refuse(Code::InvalidBody, "user_id: expected a user");
    };
    let now_ms = chassis::now_us() / 1000;
    let ms = |at: Option<prost_types::Timestamp>| {
        at.map_or(now_ms, |at| at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos) / 1_000_000))
    };
    Ok(Connection {
        connection_id: connection.connection_id,
        user_id,
        gateway_id: connection.gateway_id,
        incarnation: connection.incarnation,
        device_id: connection.device_id,
        connected_at_ms: ms(connection.connected_at),
        last_ping_at_ms: now_ms,
        workspace_id: WorkspaceId(if connection.workspace_id > 0 {
            connection.workspace_id
        } else {
            DEFAULT_WORKSPACE
        }),
    })
}

fn to_wire(connection: Connection) -> v1::Connection {
    v1::Connection {
        connection_id: connection.connection_id,
        user_id: connection.user_id.0,
        gateway_id: connection.gateway_id,
        incarnation: connection.incarnation,
        device_id: connection.device_id,
        connected_at: Some(timestamp_ms(connection.connected_at_ms)),
        last_ping_at: Some(timestamp_ms(connection.last_ping_at_ms)),
        workspace_id: connection.workspace_id.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_page_token_that_was_never_given_is_refused() {
        assert_eq!((page_offset("").unwrap(), page_offset("100").unwrap()), (0, 100));
        for token in ["x", "-1", "4294967296", "18446744073709551615", "18446744073709551616"] {
            match page_offset(token) {
                Err(Error::Refused(refusal)) => assert_eq!(refusal.code, Code::InvalidBody, "{token}"),
                other => panic!("{token}: {other:?}"),
            }
        }
    }
}
