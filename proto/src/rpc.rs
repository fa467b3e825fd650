//! Generated gRPC code of `chat.v1`, and the descriptors that server reflection serves.

/// Metadata key of a failed call's trailers that carries the stable code of [`crate::Code`].
pub const CODE_METADATA: &str = "code";

/// The encoded `FileDescriptorSet` of all services.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/chat.v1.descriptors.bin"));

/// Messages, clients and servers of package `chat.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/chat.v1.rs"));
}
