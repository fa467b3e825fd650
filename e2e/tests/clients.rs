//! Clients that we did not write: @stomp/stompjs, sockjs-client and stomp.py, as they are published, through the
//! programs of `examples/`; and Spring's, through `java/`. sockjs-client in a browser is in `browser.rs`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    endpoints::Endpoints,
    history::History,
    own_gateway::OwnGateway,
    rest::Session,
    testing::{DEADLINE, Stack},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Each of the two programs sends so many.
const EACH: usize = 500;
/// For the whole exchange.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(240);

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the repository")
        .join("examples")
        .join(path)
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(example("javascript").join(script)).kill_on_drop(true);
    command
}

fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(example("python").join(script)).kill_on_drop(true);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// stomp.py wants host and port.
fn authority(gateway: &str) -> String {
    gateway.trim_start_matches("ws://").trim_end_matches("/ws").to_owned()
}

/// What an exchange program prints.
#[derive(Debug, Deserialize)]
struct Exchanged {
    receipts: Vec<i64>,
    received: Vec<Received>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Received {
    seq: i64,
    text: String,
}

/// Sends so many, and waits until so many have come.
async fn exchange(
    mut command: Command,
    person: &Session,
    name: &str,
    conversation: i64,
    (each, total): (usize, usize),
) -> Result<Exchanged> {
    command.env("SWITCHBOARD_TOKEN", &person.token).args(["--name", name, "--after-seq", "1"]);
    command.args(["--conversation", &conversation.to_string()]);
    command.args(["--count", &each.to_string(), "--total", &total.to_string()]);
    let output =
        timeout(EXCHANGE_DEADLINE, command.output()).await.with_context(|| format!("{name} did not end"))??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {said}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("{name} printed something else: {said}"))
}

#[tokio::test]
async fn stompjs_and_stomp_py_exchange_a_thousand_messages_each_once_and_in_order() -> Result<()> {
    let stack = Stack::get()?;
    let [jana, pablo] = stack.people(["jana", "pablo"]).await?;
    let conversation = stack.channel(&[&jana, &pablo]).await?;
    let mut javascript = node("exchange.mjs");
    javascript.args(["--gateway", &stack.gateway(0)]);
    let mut in_python = python("exchange.py");
    in_python.args(["--gateway", &authority(&stack.gateway(1))]);
    let (jana, pablo) = tokio::try_join!(
        exchange(javascript, &jana, "javascript", conversation, (EACH, 2 * EACH)),
        exchange(in_python, &pablo, "python", conversation, (EACH, 2 * EACH)),
    )?;

    let mut history = History::default();
    for (name, seen) in [("javascript", &jana), ("python", &pablo)] {
        assert_eq!(seen.receipts.len(), EACH, "{name}");
        history.opened(name, conversation, 1);
        for message in &seen.received {
            history.received(name, conversation, message.seq, Some(&message.text));
        }
        for seq in &seen.receipts {
            let text = &jana.received.iter().find(|message| message.seq == *seq).context("a receipt's message")?.text;
            assert!(text.starts_with(name), "the receipt {seq} of {name} is for {text:?}");
            history.acknowledged(conversation, *seq, text);
        }
    }
    let verdict = history.verdict();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.deliveries, 4 * EACH);
    assert_eq!(jana.received, pablo.received, "both saw the same");
    Ok(())
}

/// Those that sockjs-client has outside of browsers.
const SOCKJS_TRANSPORTS: [&str; 4] = ["websocket", "xhr-streaming", "eventsource", "xhr-polling"];
/// Each of them sends so many.
const EACH_BY_SOCKJS: usize = 100;

#[tokio::test]
async fn sockjs_client_exchanges_messages_over_each_of_its_transports() -> Result<()> {
    let stack = Stack::get()?;
    let [ada] = stack.people(["ada"]).await?;
    let conversation = stack.channel(&[&ada]).await?;
    let gateways = &stack.endpoints.gateways;
    let total = EACH_BY_SOCKJS * SOCKJS_TRANSPORTS.len();
    let clients = SOCKJS_TRANSPORTS.iter().enumerate().map(|(number, transport)| {
        let mut command = node("exchange.mjs");
        command.args(["--gateway", &format!("{}/ws", gateways[number % gateways.len()]), "--transport", transport]);
        exchange(command, &ada, transport, conversation, (EACH_BY_SOCKJS, total))
    });
    let seen = futures_util::future::try_join_all(clients).await?;
    let mut history = History::default();
    for (name, exchanged) in SOCKJS_TRANSPORTS.into_iter().zip(&seen) {
        assert_eq!(exchanged.receipts.len(), EACH_BY_SOCKJS, "{name}");
        history.opened(name, conversation, 1);
        for message in &exchanged.received {
            history.received(name, conversation, message.seq, Some(&message.text));
        }
        assert_eq!(exchanged.received, seen[0].received, "all saw the same");
    }
    let verdict = history.verdict();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.deliveries, total * SOCKJS_TRANSPORTS.len());
    Ok(())
}

/// How Spring's client connects, in the words of its program, and whether that is by SockJS.
const SPRING_WAYS: [(&str, bool); 3] =
    [("websocket", false), ("sockjs websocket", true), ("sockjs xhr-streaming", true)];
/// What it prints on each way. One person sends twenty messages, the other acknowledges all but the last of them.
const SPRING_CHECKS: [&str; 14] = [
    "connected with STOMP 1.2",
    "heart-beats agreed",
    "SUBSCRIBE has its receipt",
    "RESUMED comes first",
    "each SEND has its receipt, in order",
    "messages come once, in order, with an ack header",
    "each ACK and the NACK have their receipt",
    "only heart-beats for a while, and the session lives",
    "nothing comes after UNSUBSCRIBE",
    "nothing went wrong",
    "ERROR names the receipt of its SEND",
    "and the close comes after it",
    "a bad token is answered with ERROR",
    "and then with the close",
];
/// The seq of the last that is acknowledged; the first is the channel's own.
const SPRING_ACKNOWLEDGED: i64 = 20;

/// Compiles the program, with the compiler that is among its jars; gives the class path to run it.
async fn spring_client() -> Result<OsString> {
    let jars = std::env::var_os("SWITCHBOARD_SPRING")
        .context("SWITCHBOARD_SPRING is not set: `cargo xtask test` gets the jars and sets it")?;
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spring-client");
    let jars: Vec<PathBuf> = std::fs::read_dir(&jars)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let jars = std::env::join_paths(jars.iter().filter(|path| path.extension().is_some_and(|it| it == "jar")))?;
    let mut compiler = Command::new("java");
    compiler.arg("-cp").arg(&jars).args(["org.eclipse.jdt.internal.compiler.batch.Main", "-17", "-proc:none"]);
    compiler.arg("-cp").arg(&jars).arg("-d").arg(&classes);
    compiler.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("java/SpringClient.java"));
    let output = compiler.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(std::env::join_paths(std::iter::once(classes).chain(std::env::split_paths(&jars)))?)
}

#[tokio::test]
async fn springs_client_talks_over_websocket_and_sockjs_with_heart_beats_receipts_and_individual_acks() -> Result<()> {
    let stack = Stack::get()?;
    let gateway = OwnGateway::start(&stack, "gateway-for-spring", |_| {
        // So that the program sees within seconds whether they go both ways.
        [
            ("SESSION__HEART_BEAT_SEND", "1s".to_owned()),
            ("SESSION__HEART_BEAT_RECEIVE", "1s".to_owned()),
            ("SESSION__HEART_BEAT_TOLERANCE", "2s".to_owned()),
        ]
    });
    let (class_path, gateway, [sami, otto]) =
        tokio::try_join!(spring_client(), gateway, stack.people(["sami", "otto"]))?;
    let mut ways = Vec::new();
    for (way, by_sockjs) in SPRING_WAYS {
        let conversation = stack.channel(&[&sami, &otto]).await?;
        let scheme = if by_sockjs { "http" } else { "ws" };
        let url = format!("{}/ws", gateway.url.replacen("http", scheme, 1));
        ways.push((way, conversation, url));
    }
    let input = ways.iter().map(|(way, conversation, url)| {
        let conversation = conversation.to_string();
        json!({ "way": way, "url": url, "token": sami.token, "other": otto.token, "conversation": conversation })
    });
    let input = serde_json::Value::from_iter(input).to_string();
    let mut program = Command::new("java");
    program.args(["-Dfile.encoding=UTF-8", "-XX:+UseSerialGC", "-cp"]).arg(class_path).arg("SpringClient");
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut program = program.spawn().context("starting java")?;
    program.stdin.take().context("no input")?.write_all(input.as_bytes()).await?;
    let output = timeout(EXCHANGE_DEADLINE, program.wait_with_output()).await.context("it did not end")??;
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}{said}");
    for (way, conversation, _) in ways {
        let checked: Vec<&str> =
            printed.lines().filter_map(|line| line.strip_prefix(way)?.strip_prefix(": ")).collect();
        assert_eq!(checked, SPRING_CHECKS, "{way}");
        stack.delivered_becomes(&sami, conversation, SPRING_ACKNOWLEDGED).await.context(way)?;
    }
    Ok(())
}

/// A chat program that runs.
struct Chat {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Chat {
    async fn start(mut command: Command, person: &str, endpoints: &Endpoints, gateway: &str) -> Result<Self> {
        command.args([person, "--core", &endpoints.core[0], "--gateway", gateway]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut chat = Self { child, input, output };
        chat.sees("- connected").await?;
        Ok(chat)
    }

    async fn says(&mut self, text: &str) -> Result<()> {
        self.input.write_all(format!("{text}\n").as_bytes()).await?;
        Ok(())
    }

    /// Waits for a line with that text.
    async fn sees(&mut self, text: &str) -> Result<()> {
        let read = async {
            while let Some(line) = self.output.next_line().await? {
                if line.contains(text) {
                    return Ok(());
                }
            }
            bail!("the program ended without {text:?}")
        };
        timeout(DEADLINE, read).await.with_context(|| format!("no line with {text:?} in time"))?
    }

    /// Ends the input and waits for the program.
    async fn leaves(mut self) -> Result<()> {
        drop(self.input);
        let status = timeout(DEADLINE, self.child.wait()).await.context("the program did not end with its input")??;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

#[tokio::test]
async fn the_chat_programs_of_all_languages_talk_to_each_other() -> Result<()> {
    let stack = Stack::get()?;
    let endpoints = &stack.endpoints;
    // The people and the channel of the demonstration.
    let mut probe = Command::new(env!("CARGO_BIN_EXE_probe"));
    ensure!(probe.arg("first-message").stdout(Stdio::null()).status().await?.success(), "no demonstration");
    let mut alice = Chat::start(node("chat.mjs"), "alice", endpoints, &stack.gateway(0)).await?;
    let mut bob = Chat::start(python("chat.py"), "bob", endpoints, &authority(&stack.gateway(1))).await?;
    let mut ours = Command::new(env!("CARGO_BIN_EXE_probe"));
    ours.args(["chat", "alice", "--gateway", "2"]).kill_on_drop(true);
    let mut child = ours.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (input, output) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
    let mut terminal = Chat { child, input, output: BufReader::new(output).lines() };
    terminal.sees("- connected").await?;

    let unique = uuid::Uuid::now_v7().simple().to_string();
    for (who, text) in [(0, "from javascript"), (1, "from python"), (2, "from the terminal")] {
        let text = format!("{text} {unique}");
        [&mut alice, &mut bob, &mut terminal][who].says(&text).await?;
        for chat in [&mut alice, &mut bob, &mut terminal] {
            chat.sees(&text).await?;
        }
    }
    for chat in [alice, bob, terminal] {
        chat.leaves().await?;
    }
    Ok(())
}
