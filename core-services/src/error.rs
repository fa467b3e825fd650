//! What a request can end with, and the one map to gRPC status and to problem+json.

use proto::{
    Code,
    rpc::{CODE_METADATA, v1::Failure},
};
use tonic::Status;
use tracing::{error, warn};

/// A request that is not done. `Refused` is the caller's to see; the others are logged here and shown by code only.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the database refused or went away: {0}")]
    Database(#[from] sqlx::Error),
    #[error("Redis refused or went away: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("{0:#}")]
    Internal(#[from] anyhow::Error),
}

/// A refusal with its stable code and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    /// A hint when to try again, in milliseconds; 0: none.
    pub retry_after_ms: u32,
}

/// What requests end with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0 }
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after_ms: 500, ..Self::new(Code::Unavailable, message) }
    }
}

/// Shorthand: an error that is a refusal.
pub fn refuse<T>(code: Code, message: impl Into<String>) -> Result<T> {
    Err(Refusal::new(code, message).into())
}

impl Error {
    /// What the caller is told. Causes are logged, never sent.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Error::Refused(refusal) => refusal,
            Error::Database(error) if is_passing(&error) => {
                warn!(%error, "the database did not take part");
                Refusal::unavailable("the database is away or busy; try again")
            }
            Error::Redis(error) => {
                warn!(%error, "Redis did not take part");
                Refusal::unavailable("the connection registry is away; try again")
            }
            Error::Database(error) => {
                error!(%error, "a statement failed");
                Refusal::new(Code::Internal, "the request failed inside; it was logged")
            }
            Error::Internal(error) => {
                error!("a request failed: {error:#}");
                Refusal::new(Code::Internal, "the request failed inside; it was logged")
            }
        }
    }
}

/// The MySQL error number; 0 when the error is not the server's.
pub fn mysql_number(error: &sqlx::Error) -> u16 {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
        .map_or(0, sqlx::mysql::MySqlDatabaseError::number)
}

/// Deadlock (1213) and lock wait timeout (1205): the same transaction may succeed when tried again, after a rollback.
pub fn is_contention(error: &sqlx::Error) -> bool {
    matches!(mysql_number(error), 1205 | 1213)
}

/// Deadlock (1213): the server ended this transaction so that another can go on, so it may be tried again at once.
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    mysql_number(error) == 1213
}

/// Somebody holds a row: at once (3572), for the time of the statement (3024, `MAX_EXECUTION_TIME`) or of the session.
pub fn is_locked(error: &sqlx::Error) -> bool {
    matches!(mysql_number(error), 3572 | 3024) || is_contention(error)
}

/// The same request may succeed later: contention, or a server that is away, stopping, read-only or overloaded.
pub fn is_passing(error: &sqlx::Error) -> bool {
    use sqlx::Error as E;
    match error {
        E::Io(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) | E::Tls(_) => true,
        // Too many connections (of all, of a user), shutdown, interrupted (killed), read-only, killed by the idle timeout,
        // gone, lost, out of time.
        _ => {
            is_contention(error)
                || matches!(
                    mysql_number(error),
                    1040 | 1203 | 1226 | 1053 | 1317 | 1290 | 1836 | 4031 | 2006 | 2013 | 3024
                )
        }
    }
}

/// A violated unique key (1062).
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    mysql_number(error) == 1062
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure {
            code: refusal.code.as_str().to_owned(),
            message: refusal.message,
            retry_after_ms: refusal.retry_after_ms,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.into_refusal().into()
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            Code::Unauthenticated | Code::TokenExpired => tonic::Code::Unauthenticated,
            Code::Forbidden | Code::NotAMember | Code::SpoofedSender => tonic::Code::PermissionDenied,
            Code::NotFound => tonic::Code::NotFound,
            Code::Conflict => tonic::Code::AlreadyExists,
            Code::RateLimited | Code::TooManyConnections | Code::TooManySubscriptions => tonic::Code::ResourceExhausted,
            Code::Unavailable | Code::Draining => tonic::Code::Unavailable,
            Code::Internal => tonic::Code::Internal,
            _ => tonic::Code::InvalidArgument,
        };
        let mut status = Status::new(status, refusal.message);
        status.metadata_mut().insert(CODE_METADATA, tonic::metadata::MetadataValue::from_static(refusal.code.as_str()));
        status
    }
}
