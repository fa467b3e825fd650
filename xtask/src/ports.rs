//! The port of every listener. Engines sit 10000 above their usual ports, so that a machine that already runs
//! one is left alone; copy `n` of a service adds `100·(n−1)`; the stack's offset is added to all.

use anyhow::{Result, ensure};

/// The first of Kafka's further listeners, and the highest port of the table, at offset 0.
const KAFKA_LINKS: u16 = 19094;
const HIGHEST: u16 = 19096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    offset: u16,
}

impl Ports {
    /// # Errors
    /// An offset that would push a port over 65535.
    pub fn with_offset(offset: u16) -> Result<Self> {
        let most = u16::MAX - HIGHEST;
        ensure!(offset <= most, "--port-offset {offset} is too large: at most {most}");
        Ok(Self { offset })
    }

    pub fn mysql(self) -> u16 {
        13306 + self.offset
    }

    pub fn redis(self) -> u16 {
        16379 + self.offset
    }

    pub fn kafka(self) -> u16 {
        19092 + self.offset
    }

    pub fn kafka_controller(self) -> u16 {
        19093 + self.offset
    }

    /// Listeners that are reached through a link of a chaos run; the first is 0.
    pub fn kafka_link(self, index: usize) -> u16 {
        KAFKA_LINKS + index as u16 + self.offset
    }

    pub fn connect(self) -> u16 {
        18084 + self.offset
    }

    /// REST, OAuth2 and gRPC.
    pub fn core(self, copy: u16) -> u16 {
        self.of_copy(8081, copy)
    }

    pub fn core_admin(self, copy: u16) -> u16 {
        self.of_copy(9081, copy)
    }

    /// WebSocket and SockJS.
    pub fn gateway(self, copy: u16) -> u16 {
        self.of_copy(8082, copy)
    }

    pub fn gateway_admin(self, copy: u16) -> u16 {
        self.of_copy(9082, copy)
    }

    /// Health, metrics and the routing view: a worker has no other listener.
    pub fn worker(self, copy: u16) -> u16 {
        self.of_copy(8083, copy)
    }

    fn of_copy(self, first: u16, copy: u16) -> u16 {
        first + 100 * (copy - 1) + self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::StackName;
    use clap::ValueEnum as _;

    #[test]
    fn copies_are_a_hundred_apart_and_the_offset_moves_everything() {
        let ports = Ports::with_offset(0).unwrap();
        assert_eq!((ports.core(1), ports.gateway(1), ports.gateway(2), ports.worker(1)), (8081, 8082, 8182, 8083));
        assert_eq!((ports.core_admin(1), ports.gateway_admin(2)), (9081, 9182));
        let test = Ports::with_offset(5000).unwrap();
        assert_eq!((test.mysql(), test.kafka(), test.worker(2)), (18306, 24092, 13183));
    }

    #[test]
    fn no_two_listeners_share_a_port_within_a_stack_or_with_another_stack() {
        let mut seen = std::collections::HashSet::new();
        for stack in StackName::value_variants() {
            let ports = Ports::with_offset(stack.default_port_offset()).unwrap();
            let kafka =
                [ports.kafka(), ports.kafka_controller()].into_iter().chain((0..3).map(|n| ports.kafka_link(n)));
            let engines = [ports.mysql(), ports.redis(), ports.connect()].into_iter().chain(kafka);
            let services = (1..=9).flat_map(|n| {
                [ports.core(n), ports.core_admin(n), ports.gateway(n), ports.gateway_admin(n), ports.worker(n)]
            });
            for port in engines.chain(services) {
                assert!(seen.insert(port), "{port} is used twice");
                assert!(port < 32768, "Linux gives {port} to connections");
            }
        }
    }

    #[test]
    fn an_offset_beyond_the_last_port_is_refused() {
        assert!(Ports::with_offset(46439).is_ok());
        assert!(Ports::with_offset(46440).is_err());
    }
}
