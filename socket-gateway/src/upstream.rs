//! Calls to core: what the hub reads (attaching, heads, states, the log), what sessions publish, and the stream of SENDs.
//!
//! Any core serves anything. Calls about a conversation go to one core by its hash, so that what core batches comes
//! together; a call that gets no answer is tried once more on the next, and a core that is known to be silent comes last
//! ([`breaker`]). All calls carry the gateway's service token.

mod batch;
mod breaker;
mod endpoints;
mod lanes;
mod reads;
mod sends;

pub use endpoints::Endpoints;
pub use lanes::Lane;
pub(crate) use reads::now;
#[cfg(test)]
pub(crate) use reads::tests as reads_tests;
pub use reads::{Core, Heads};
pub use sends::{Outbound, Sends};

#[cfg(test)]
mod tests;
