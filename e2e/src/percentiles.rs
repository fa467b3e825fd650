//! Percentiles of measured times, exact: all samples are kept.

use serde::Serialize;

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub count: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Of samples in microseconds; their order is lost.
    pub fn of(samples: &mut [i64]) -> Self {
        samples.sort_unstable();
        let Some(last) = samples.last() else { return Self::default() };
        // Nearest rank: the smallest sample that at least that share of all does not exceed.
        let at = |percent: usize| ms(samples[(samples.len() * percent).div_ceil(100).max(1) - 1]);
        Self { count: samples.len(), p50: at(50), p90: at(90), p99: at(99), max: ms(*last) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span of microseconds is far below 2^52")]
fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut samples: Vec<i64> = (1..=100).rev().map(|n| n * 1000).collect();
        let percentiles = Percentiles::of(&mut samples);
        assert_eq!((percentiles.p50, percentiles.p90, percentiles.p99, percentiles.max), (50.0, 90.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(&mut [7000]).p50, 7.0);
        assert_eq!(Percentiles::of(&mut []).count, 0);
    }
}
