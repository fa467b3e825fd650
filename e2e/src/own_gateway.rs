//! One more gateway beside those of the stack, with settings of a test's own: it is a copy of the first one and serves
//! the same people. It ends with the test.

use std::{fs::File, net::TcpListener, process::Stdio};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::Method;
use tokio::process::{Child, Command};

use crate::{
    rest::Rest,
    testing::{Stack, eventually},
};

/// Whose program and configuration it has.
const MODEL: &str = "socket-gateway-1";

#[derive(Debug)]
pub struct OwnGateway {
    /// As `http://…`, which is also its origin.
    pub url: String,
    process: Child,
}

impl OwnGateway {
    /// Starts it and waits until it is ready. `settings` gets its URL and gives the keys that are different, as in
    /// `("SOCKJS__HEARTBEAT", "1s")`; its log is `name`.log beside the others.
    pub async fn start<const N: usize>(
        stack: &Stack,
        name: &str,
        settings: impl FnOnce(&str) -> [(&'static str, String); N],
    ) -> Result<Self> {
        let [port, admin] = free_ports()?;
        let url = format!("http://127.0.0.1:{port}");
        let model = stack.endpoints.process(MODEL)?;
        let log = model.log.with_file_name(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        // The program that runs, even if another was built since.
        let mut command = Command::new(format!("/proc/{}/exe", model.pid));
        command.arg("--config").arg(stack.endpoints.folder.join("run").join(format!("{MODEL}.yaml")));
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).kill_on_drop(true);
        let own = [
            ("GATEWAY__ID", format!("{name}-{port}")),
            ("SERVER__LISTEN", format!("127.0.0.1:{port}")),
            ("ADMIN__LISTEN", format!("127.0.0.1:{admin}")),
        ];
        for (key, value) in own.into_iter().chain(settings(&url)) {
            command.env(format!("SWITCHBOARD__{key}"), value);
        }
        let mut gateway = Self { url, process: command.spawn().context("starting a gateway")? };
        let rest = Rest::new(&[format!("http://127.0.0.1:{admin}")]);
        eventually(format!("the gateway of {} is ready", log.display()), || {
            let (ended, rest) = (gateway.process.try_wait(), rest.clone());
            async move {
                if let Some(status) = ended? {
                    bail!("it has ended: {status}");
                }
                let answer = rest.raw(Method::GET, "/readyz", None, None, Bytes::new()).await;
                Ok(answer.ok().filter(|answer| answer.status.is_success()).map(|_| ()))
            }
        })
        .await?;
        Ok(gateway)
    }
}

/// Ports that nobody listens on. It must know its own before it starts, because the list of origins names it.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All at once, or one would be given twice.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}
