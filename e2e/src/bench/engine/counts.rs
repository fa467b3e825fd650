//! What the generator has counted.

use hdrhistogram::Histogram;

/// The longest time that is told apart, in microseconds; longer counts as this.
const LONGEST: u64 = 600_000_000;

/// Since the start of the generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub sent: u64,
    /// Stamped messages that came.
    pub delivered: u64,
    /// Those of them that were stamped before the window.
    pub stale: u64,
    /// RECEIPTs of SENDs.
    pub acknowledged: u64,
    /// Read from gateways, WebSocket heads included.
    pub bytes: u64,
    /// Reads from sockets.
    pub reads: u64,
    /// ERROR frames.
    pub errors: u64,
    /// Connections that were subscribed and ended.
    pub closed: u64,
    /// Set-ups that failed and were tried again.
    pub retries: u64,
}

/// An empty distribution of microseconds, exact to 0.1 %.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("these bounds are valid")
}

/// Records nanoseconds as microseconds.
pub fn record(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record((ns / 1000).clamp(1, LONGEST));
}
