//! A real browser: Chromium loads a page of another origin than the gateway's, with sockjs-client and stompjs as they are
//! published, and talks over each transport of SockJS that a browser has. The page reports to its server, which is this
//! test, so nothing else drives the browser.
//!
//! What it does not have: `xdr-streaming` and `xdr-polling` are for the XDomainRequest of Internet Explorer 8 and 9;
//! `htmlfile` by itself is for pages of the gateway's own origin, so it is spoken by the page in the iframe
//! (`iframe-htmlfile`).

use std::{collections::HashMap, fs::File, path::Path, process::Stdio, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    own_gateway::OwnGateway,
    testing::{DEADLINE, Stack},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};

const TRANSPORTS: [&str; 8] = [
    "websocket",
    "xhr-streaming",
    "xhr-polling",
    "eventsource",
    "iframe-eventsource",
    "iframe-htmlfile",
    "iframe-xhr-polling",
    "jsonp-polling",
];
const WITHOUT: [&str; 3] = ["xdr-streaming", "xdr-polling", "htmlfile"];
/// Sent over each transport: more than one streaming answer holds of the gateway that this test starts.
const TEXTS: usize = 20;
const RESPONSE_LIMIT: &str = "4KiB";
/// For the intruder that never gets to CONNECT.
const CONNECT_TIMEOUT: &str = "2s";
/// The client library for the page in the iframe.
const FOR_IFRAME: &str = "/iframe/sockjs.js";

/// What a page reports.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Report {
    Talked(Talked),
    Refused { transport: String, events: Vec<String> },
    Failed { why: String },
    Done,
}

#[derive(Debug, Deserialize)]
struct Talked {
    transport: String,
    /// That sockjs-client says it uses.
    used: String,
    receipts: Vec<i64>,
    received: Vec<Received>,
    errors: Vec<String>,
    end: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Received {
    seq: i64,
    text: String,
}

/// By path: content type and content.
type Files = HashMap<String, (&'static str, Vec<u8>)>;

/// A page's server: gives its files and takes its reports.
struct Site {
    origin: String,
    files: Arc<Mutex<Files>>,
    asked: Arc<Mutex<Vec<String>>>,
    reports: mpsc::Receiver<Report>,
    _server: JoinSet<()>,
}

impl Site {
    /// `script` is what its page runs.
    async fn start(script: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        // Not the gateway's name for the same machine: to the browser another site, not only another port.
        let origin = format!("http://localhost:{}", listener.local_addr()?.port());
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/javascript/node_modules");
        let package = |path: &str| {
            let path = packages.join(path);
            std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
        let sockjs = package("sockjs-client/dist/sockjs.js")?;
        let files = Files::from([
            ("/".to_owned(), ("text/html", include_bytes!("browser/index.html").to_vec())),
            ("/run.js".to_owned(), (JAVASCRIPT, script.into())),
            ("/sockjs.js".to_owned(), (JAVASCRIPT, sockjs.clone())),
            (FOR_IFRAME.to_owned(), (JAVASCRIPT, sockjs)),
            ("/stomp.js".to_owned(), (JAVASCRIPT, package("@stomp/stompjs/bundles/stomp.umd.js")?)),
        ]);
        let (files, asked) = (Arc::new(Mutex::new(files)), Arc::default());
        // The page waits for each report to be taken.
        let (sender, reports) = mpsc::channel(1);
        let mut server = JoinSet::new();
        let (its_files, its_asked) = (Arc::clone(&files), Arc::clone(&asked));
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (files, asked, sender) = (Arc::clone(&its_files), Arc::clone(&its_asked), sender.clone());
                connections.spawn(async move {
                    // A browser opens connections that it does not use.
                    let _ = answer(stream, &files, &asked, &sender).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { origin, files, asked, reports, _server: server })
    }

    /// What the page is told to do.
    async fn plan(&self, plan: &serde_json::Value) {
        self.files.lock().await.insert("/plan.json".to_owned(), ("application/json", plan.to_string().into()));
    }

    async fn report(&mut self) -> Result<Report> {
        match timeout(DEADLINE, self.reports.recv())
            .await
            .context("the page reported nothing in time: see browser.log")?
        {
            Some(Report::Failed { why }) => bail!("the page's script failed: {why}"),
            report => report.context("the page's server has ended"),
        }
    }

    /// The next report, of a transport that was refused: what happened.
    async fn refused(&mut self, expected: &str) -> Result<Vec<String>> {
        match self.report().await? {
            Report::Refused { transport, events } if transport == expected => Ok(events),
            report => bail!("expected a refusal over {expected}, got {report:?}"),
        }
    }

    async fn done(&mut self) -> Result<()> {
        let report = self.report().await?;
        ensure!(matches!(report, Report::Done), "{report:?}");
        Ok(())
    }

    async fn times_asked(&self, path: &str) -> usize {
        self.asked.lock().await.iter().filter(|asked| *asked == path).count()
    }
}

/// One request of a browser.
async fn answer(
    stream: TcpStream,
    files: &Mutex<Files>,
    asked: &Mutex<Vec<String>>,
    reports: &mpsc::Sender<Report>,
) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    stream.read_line(&mut first).await?;
    while stream.read_line(&mut line).await? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let found = match first.split(' ').next() {
        Some("POST") => {
            let text = String::from_utf8_lossy(&body);
            let report = serde_json::from_str(&text);
            let why = |error| Report::Failed { why: format!("it reported {text}: {error}") };
            reports.send(report.unwrap_or_else(why)).await?;
            Some(("text/plain", Vec::new()))
        }
        _ => files.lock().await.get(&path).cloned(),
    };
    asked.lock().await.push(path);
    let (status, (content_type, body)) =
        found.map_or(("404 Not Found", ("text/plain", Vec::new())), |found| ("200 OK", found));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.into_bytes(), body].concat()).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Chromium with a fresh profile.
struct Browser {
    process: Child,
    profile: std::path::PathBuf,
}

impl Browser {
    fn open(stack: &Stack, url: &str) -> Result<Self> {
        let program = std::env::var_os("SWITCHBOARD_BROWSER")
            .context("SWITCHBOARD_BROWSER is not set: `cargo xtask test` gets a browser and sets it")?;
        let name = format!("browser-{}", uuid::Uuid::now_v7().simple());
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let log = stack.endpoints.process("socket-gateway-1")?.log.with_file_name("browser.log");
        let log = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(program);
        // No sandbox: it does not work as root or in containers, and there is nothing here but our own pages.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        // Nothing is asked of anybody outside.
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg("--enable-logging=stderr");
        command.args(["--remote-debugging-port=0", url]);
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn();
        Ok(Self { process: process.context("starting the browser")?, profile })
    }

    async fn close(mut self) -> Result<()> {
        let pid = self.process.id().context("the browser has ended")?.to_string();
        ensure!(Command::new("kill").args(["-TERM", &pid]).status().await?.success(), "kill -TERM {pid} failed");
        timeout(DEADLINE, self.process.wait()).await.context("the browser did not end in time")??;
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// Everything that a transport may trip over: quotes, backslashes, scripts, what JSON and JavaScript see differently,
/// characters of two UTF-16 units, controls; and enough of it.
fn texts(transport: &str) -> Vec<String> {
    let hard = "\"quoted\" \\n </script> \u{2028}\u{2029}\u{feff} \u{fffd} é 語 😀 \t\r\n end";
    (0..TEXTS).map(|number| format!("{transport} {number}: {hard} {}", "x".repeat(200))).collect()
}

#[tokio::test]
async fn a_browser_talks_over_each_transport_and_a_page_of_a_foreign_origin_over_none() -> Result<()> {
    let stack = Stack::get()?;
    let [ines] = stack.people(["ines"]).await?;
    let conversation = stack.channel(&[&ines]).await?;
    let mut page = Site::start(include_str!("browser/talk.js")).await?;
    let mut intruder = Site::start(include_str!("browser/intrude.js")).await?;
    let gateway = OwnGateway::start(&stack, "gateway-for-browser", |own| {
        [
            // Its own: that of the page in the iframe.
            ("WEBSOCKET__ALLOWED_ORIGINS", json!([page.origin, own]).to_string()),
            ("SOCKJS__CLIENT_URL", format!("{}{FOR_IFRAME}", page.origin)),
            ("SOCKJS__RESPONSE_LIMIT", RESPONSE_LIMIT.to_owned()),
            ("SESSION__CONNECT_TIMEOUT", CONNECT_TIMEOUT.to_owned()),
        ]
    })
    .await?;
    let address = format!("{}/ws", gateway.url);

    intruder.plan(&json!({ "gateway": address, "token": ines.token, "transports": TRANSPORTS })).await;
    let browser = Browser::open(&stack, &intruder.origin)?;
    for transport in TRANSPORTS {
        assert_eq!(intruder.refused(transport).await?, ["close 1002 Cannot connect to server"], "{transport}");
    }
    for (way, outcome) in [
        ("plain websocket", "close 1006"),
        ("raw websocket", "close 1006"),
        ("sockjs websocket", "close 1006"),
        ("xhr", "TypeError"),
        // The browser shows a page of its own instead: see below.
        ("iframe", "loaded"),
        ("jsonp", "o a[\"ERROR"),
    ] {
        assert_eq!(intruder.refused(way).await?, [outcome], "{way}");
    }
    intruder.done().await?;
    browser.close().await?;
    assert_eq!(page.times_asked(FOR_IFRAME).await, 0, "the gateway's page did not run in the intruder's iframe");

    let all: Vec<Vec<String>> = TRANSPORTS.iter().map(|transport| texts(transport)).collect();
    page.plan(&json!({
        "gateway": address, "token": ines.token, "badToken": "bad", "conversation": conversation.to_string(),
        "texts": std::iter::zip(TRANSPORTS, &all).collect::<HashMap<_, _>>(),
        "transports": TRANSPORTS, "without": WITHOUT,
    }))
    .await;
    let browser = Browser::open(&stack, &page.origin)?;
    // The first seq is the channel's own.
    let mut seq = 1;
    for (transport, texts) in TRANSPORTS.into_iter().zip(all) {
        let Report::Talked(talked) = page.report().await? else { bail!("no conversation over {transport}") };
        assert_eq!((talked.transport.as_str(), talked.used.as_str()), (transport, transport));
        assert_eq!(talked.errors, [""; 0], "{transport}");
        let expected: Vec<Received> =
            texts.into_iter().zip(seq + 1..).map(|(text, seq)| Received { seq, text }).collect();
        assert_eq!(talked.received, expected, "{transport}");
        assert!(talked.receipts.iter().copied().eq(seq + 1..=seq + TEXTS as i64), "{transport}: {:?}", talked.receipts);
        assert!(talked.end.starts_with("close 1000"), "{transport}: {}", talked.end);
        seq += TEXTS as i64;
        let refused = page.refused(transport).await?;
        assert_eq!(refused, ["ERROR unauthenticated", "close 4001 unauthenticated"], "{transport}");
    }
    for transport in WITHOUT {
        assert_eq!(page.refused(transport).await?, ["close 2000 All transports failed"], "{transport}");
    }
    page.done().await?;
    browser.close().await?;
    assert!(page.times_asked(FOR_IFRAME).await > 0, "the gateway's page ran in this page's iframe");
    Ok(())
}
