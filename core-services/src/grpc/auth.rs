//! AuthService.

use std::sync::Arc;

use proto::rpc::v1::{
    HelloRequest, HelloResponse, VerifyAccessTokenRequest, VerifyAccessTokenResponse, auth_service_server::AuthService,
};
use tonic::{Request, Response, Status};

use super::{caller, timestamp, timestamp_ms};
use crate::{app::App, auth::tokens::Rejection};

pub struct Auth(pub Arc<App>);

#[tonic::async_trait]
impl AuthService for Auth {
    async fn verify_access_token(
        &self,
        request: Request<VerifyAccessTokenRequest>,
    ) -> Result<Response<VerifyAccessTokenResponse>, Status> {
        caller(&self.0, &request).await?;
        let invalid = |reason: &str| VerifyAccessTokenResponse { reason: reason.to_owned(), ..Default::default() };
        let answer = match self.0.tokens.check(&request.into_inner().access_token).await {
            Ok(checked) => {
                let claims = checked.claims;
                VerifyAccessTokenResponse {
                    valid: true,
                    reason: String::new(),
                    user_id: claims.user_id().map_or(0, |user| user.0),
                    scopes: claims.scope.split_ascii_whitespace().map(str::to_owned).collect(),
                    expires_at: Some(timestamp_ms(claims.exp * 1000)),
                    client_id: claims.client_id.unwrap_or_default(),
                    session_id: claims.sid.unwrap_or_default(),
                }
            }
            Err(Rejection::Token(error)) => invalid(error.reason()),
            Err(Rejection::Revoked) => invalid("revoked"),
            Err(Rejection::Failed(error)) => return Err(error.into()),
        };
        Ok(Response::new(answer))
    }

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        caller(&self.0, &request).await?;
        Ok(Response::new(HelloResponse {
            message: format!("hello {}", request.into_inner().name),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server_time: Some(timestamp(crate::now())),
        }))
    }
}
