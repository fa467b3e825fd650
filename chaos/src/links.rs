//! The links between the processes that go through a proxy of this program, and the settings that lead them there.
//!
//! Engines are reached through a link by the services only; what judges and what breaks uses their own ports.

use std::{fmt, net::SocketAddr, str::FromStr};

use anyhow::{Context as _, Result, bail};

use crate::proxy::{Done, Link, Mode};

/// Between whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    ClientGateway,
    GatewayRedis,
    GatewayCore,
    WorkerRedis,
    WorkerKafka,
    CoreMysql,
    CoreRedis,
    CoreKafka,
    ConnectMysql,
    ConnectKafka,
}

impl Route {
    pub const ALL: [Self; 10] = [
        Self::ClientGateway,
        Self::GatewayRedis,
        Self::GatewayCore,
        Self::WorkerRedis,
        Self::WorkerKafka,
        Self::CoreMysql,
        Self::CoreRedis,
        Self::CoreKafka,
        Self::ConnectMysql,
        Self::ConnectKafka,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::ClientGateway => "client-gateway",
            Self::GatewayRedis => "gateway-redis",
            Self::GatewayCore => "gateway-core",
            Self::WorkerRedis => "worker-redis",
            Self::WorkerKafka => "worker-kafka",
            Self::CoreMysql => "core-mysql",
            Self::CoreRedis => "core-redis",
            Self::CoreKafka => "core-kafka",
            Self::ConnectMysql => "connect-mysql",
            Self::ConnectKafka => "connect-kafka",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Route {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(found) = Self::ALL.into_iter().find(|route| route.text() == text) else {
            bail!("no link is called `{text}`: expected {}", Self::ALL.map(Self::text).join(", "));
        };
        Ok(found)
    }
}

/// How many of each service there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    pub gateways: u16,
    pub workers: u16,
    pub cores: u16,
}

/// The stack's ports, as `cargo xtask` counts them.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub offset: u16,
}

impl Ports {
    fn at(self, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port + self.offset))
    }

    fn of_copy(self, first: u16, copy: u16) -> SocketAddr {
        self.at(first + 100 * (copy - 1))
    }

    pub fn core(self, copy: u16) -> SocketAddr {
        self.of_copy(8081, copy)
    }

    pub fn gateway(self, copy: u16) -> SocketAddr {
        self.of_copy(8082, copy)
    }

    pub fn worker(self, copy: u16) -> SocketAddr {
        self.of_copy(8083, copy)
    }

    fn mysql(self) -> SocketAddr {
        self.at(13306)
    }

    fn redis(self) -> SocketAddr {
        self.at(16379)
    }

    /// Listeners that tell their clients to come through a link: of workers, of Connect, of cores.
    fn kafka_links(self) -> [SocketAddr; 3] {
        [19094, 19095, 19096].map(|port| self.at(port))
    }
}

/// One link by name, e.g. `socket-gateway-1 to redis`.
#[derive(Debug)]
struct Named {
    route: Route,
    name: String,
    link: Link,
}

/// All links of a stack.
#[derive(Debug)]
pub struct Links {
    all: Vec<Named>,
    /// `--set` of `cargo xtask up`.
    settings: Vec<String>,
}

impl Links {
    pub async fn open(ports: Ports, copies: Copies) -> Result<Self> {
        let mut links = Self { all: Vec::new(), settings: Vec::new() };
        for gateway in 1..=copies.gateways {
            let name = format!("socket-gateway-{gateway}");
            links.add(Route::ClientGateway, format!("clients to {name}"), ports.gateway(gateway)).await?;
            let redis = links.add(Route::GatewayRedis, format!("{name} to redis"), ports.redis()).await?;
            links.settings.push(format!("{name}.redis.url=redis://127.0.0.1:{redis}"));
            let mut cores = Vec::new();
            for core in 1..=copies.cores {
                let to = format!("{name} to core-services-{core}");
                let port = links.add(Route::GatewayCore, to, ports.core(core)).await?;
                cores.push(format!("\"http://127.0.0.1:{port}\""));
            }
            links.settings.push(format!("{name}.core.endpoints=[{}]", cores.join(", ")));
        }
        for worker in 1..=copies.workers {
            let name = format!("fanout-worker-{worker}");
            let redis = links.add(Route::WorkerRedis, format!("{name} to redis"), ports.redis()).await?;
            links.settings.push(format!("{name}.redis.url=redis://127.0.0.1:{redis}"));
        }
        for core in 1..=copies.cores {
            let name = format!("core-services-{core}");
            let mysql = links.add(Route::CoreMysql, format!("{name} to mysql"), ports.mysql()).await?;
            links.settings.push(format!("{name}.mysql.url=mysql://chat@127.0.0.1:{mysql}/chat"));
            let redis = links.add(Route::CoreRedis, format!("{name} to redis"), ports.redis()).await?;
            links.settings.push(format!("{name}.redis.url=redis://127.0.0.1:{redis}"));
        }
        // A listener of the broker tells its clients one address to come to, so all of a kind share a link.
        let [of_workers, of_connect, of_cores] = ports.kafka_links();
        let workers = links.add(Route::WorkerKafka, "workers to kafka".to_owned(), of_workers).await?;
        links.settings.push(format!("kafka.link.workers={workers}"));
        links.settings.push(format!("fanout-worker.kafka.brokers=127.0.0.1:{workers}"));
        let cores = links.add(Route::CoreKafka, "cores to kafka".to_owned(), of_cores).await?;
        links.settings.push(format!("kafka.link.cores={cores}"));
        links.settings.push(format!("core-services.kafka.brokers=127.0.0.1:{cores}"));
        let connect = links.add(Route::ConnectKafka, "connect to kafka".to_owned(), of_connect).await?;
        links.settings.push(format!("kafka.link.connect={connect}"));
        links.settings.push(format!("connect.kafka.port={connect}"));
        let mysql = links.add(Route::ConnectMysql, "connect to mysql".to_owned(), ports.mysql()).await?;
        links.settings.push(format!("connect.database.port={mysql}"));
        Ok(links)
    }

    async fn add(&mut self, route: Route, name: String, upstream: SocketAddr) -> Result<u16> {
        let link = Link::open(upstream).await.with_context(|| name.clone())?;
        let port = link.port();
        self.all.push(Named { route, name, link });
        Ok(port)
    }

    /// What `cargo xtask up --set` has to be told.
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    /// WebSocket addresses of the gateways, in order.
    pub fn gateways(&self) -> Vec<String> {
        let links = self.all.iter().filter(|named| named.route == Route::ClientGateway);
        links.map(|named| format!("ws://127.0.0.1:{}/ws", named.link.port())).collect()
    }

    /// The link of one process, of those that have one of their own on that route.
    pub fn of(&self, process: &str, route: Route) -> Result<Chosen<'_>> {
        let is_its = |named: &&Named| named.route == route && named.name.starts_with(&format!("{process} to "));
        let link = self.all.iter().find(is_its).with_context(|| format!("{process} has no link of {route}"))?;
        Ok(Chosen { links: vec![link], name: link.name.clone() })
    }

    /// One link of a route, or all of it.
    pub fn choose(&self, route: Route, pick: u64) -> Chosen<'_> {
        let of_route: Vec<&Named> = self.all.iter().filter(|named| named.route == route).collect();
        // One time in so many, all of them.
        let choices = of_route.len() + usize::from(of_route.len() > 1);
        match of_route.get((pick % choices as u64) as usize) {
            Some(one) => Chosen { links: vec![one], name: one.name.clone() },
            None => Chosen { links: of_route, name: format!("all of {route}") },
        }
    }
}

/// Links that have a fault together.
#[derive(Debug)]
pub struct Chosen<'a> {
    links: Vec<&'a Named>,
    pub name: String,
}

impl Chosen<'_> {
    pub fn set(&self, mode: Mode) {
        for named in &self.links {
            named.link.set(mode);
        }
    }

    pub fn done(&self) -> Done {
        self.links
            .iter()
            .map(|named| named.link.done())
            .fold(Done::default(), |sum, one| Done { cut: sum.cut + one.cut, bytes: sum.bytes + one.bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_service_is_led_through_links_of_its_own() {
        let copies = Copies { gateways: 2, workers: 1, cores: 2 };
        let links = Links::open(Ports { offset: 11000 }, copies).await.unwrap();
        assert_eq!(links.gateways().len(), 2);
        // Gateways: clients, Redis and each core; workers: Redis; cores: MySQL and Redis; three of Kafka; Connect to MySQL.
        assert_eq!(links.all.len(), 2 * (1 + 1 + 2) + 1 + 2 * 2 + 3 + 1);
        let of = |start: &str| links.settings().iter().filter(|text| text.starts_with(start)).count();
        assert_eq!((of("socket-gateway-1."), of("socket-gateway-2."), of("core-services-2.mysql.url=")), (2, 2, 1));
        let names: Vec<String> = (0..3).map(|pick| links.choose(Route::GatewayRedis, pick).name).collect();
        assert_eq!(names, ["socket-gateway-1 to redis", "socket-gateway-2 to redis", "all of gateway-redis"]);
        assert_eq!(links.choose(Route::WorkerKafka, 7).name, "workers to kafka");
        assert_eq!(links.of("fanout-worker-1", Route::WorkerRedis).unwrap().name, "fanout-worker-1 to redis");
        assert!(links.of("fanout-worker-2", Route::WorkerRedis).is_err());
    }
}
