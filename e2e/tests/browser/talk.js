// Over one transport after another: a conversation, and a refused token. Then the transports that a browser does not
// have. Everything is reported to the server of this page, which is the test.
/** For a transport to open, on a busy machine. */
const PATIENCE_MS = 20_000;
const plan = await (await fetch("plan.json")).json();

function report(what) {
  return fetch("report", { method: "POST", body: JSON.stringify(what) });
}
addEventListener("error", (event) => report({ kind: "failed", why: event.message }));
addEventListener("unhandledrejection", (event) => report({ kind: "failed", why: String(event.reason) }));

/** A client that may use one transport only, and its socket. */
function clientOver(transport, token) {
  const way = { client: null, socket: null };
  way.client = new StompJs.Client({
    webSocketFactory: () => (way.socket = new SockJS(plan.gateway, null, { transports: [transport], timeout: PATIENCE_MS })),
    connectHeaders: { Authorization: `Bearer ${token}` },
    reconnectDelay: 0,
  });
  return way;
}

function closed(client) {
  return new Promise((resolve) => {
    client.onWebSocketClose = (event) => resolve(`close ${event.code} ${event.reason}`);
  });
}

async function talk(transport) {
  const saw = { kind: "talked", transport, used: null, receipts: [], received: [], errors: [] };
  const texts = plan.texts[transport];
  const way = clientOver(transport, plan.token);
  const { client } = way;
  const endWhenDone = () => {
    if (saw.receipts.length >= texts.length && saw.received.length >= texts.length) client.deactivate();
  };
  client.onConnect = () => {
    saw.used = way.socket.transport;
    client.watchForReceipt("subscribed", () => {
      texts.forEach((text, number) => {
        const receipt = `${number}`;
        client.watchForReceipt(receipt, (frame) => {
          saw.receipts.push(Number(frame.headers.seq));
          endWhenDone();
        });
        client.publish({
          destination: `/app/conversations/${plan.conversation}/messages`,
          headers: { receipt },
          body: JSON.stringify({ body: text }),
        });
      });
    });
    const hear = (frame) => {
      const event = JSON.parse(frame.body);
      if (event.type !== "MESSAGE") return;
      saw.received.push({ seq: Number(frame.headers.seq), text: event.data.body });
      endWhenDone();
    };
    client.subscribe(`/topic/conversations/${plan.conversation}`, hear, { receipt: "subscribed" });
  };
  client.onStompError = (frame) => saw.errors.push(frame.headers.message);
  const end = closed(client);
  client.activate();
  saw.end = await end;
  return saw;
}

async function refused(transport) {
  const events = [];
  const { client } = clientOver(transport, plan.badToken);
  client.onConnect = () => events.push("CONNECTED");
  client.onStompError = (frame) => events.push(`ERROR ${frame.headers.code}`);
  const end = closed(client);
  client.activate();
  events.push(await end);
  return { kind: "refused", transport, events };
}

for (const transport of plan.transports) {
  await report(await talk(transport));
  await report(await refused(transport));
}
for (const transport of plan.without) {
  const { client } = clientOver(transport, plan.token);
  const end = closed(client);
  client.activate();
  await report({ kind: "refused", transport, events: [await end] });
}
await report({ kind: "done" });
