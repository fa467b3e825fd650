// A terminal chat: node chat.mjs NAME [--core URL] [--gateway URL] [--transport NAME]...
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Client } from "@stomp/stompjs";
import { conversationNamed, DEMO_PASSWORD, login } from "./session.mjs";
import { socketTo } from "./socket.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    core: { type: "string", default: "http://127.0.0.1:8081" },
    gateway: { type: "string", default: "ws://127.0.0.1:8082/ws" },
    transport: { type: "string", multiple: true },
  },
});
const name = positionals[0] ?? "alice";
const { access_token: token, user } = await login(options.core, name, DEMO_PASSWORD);
const conversation = await conversationNamed(options.core, token, "general");

/** Where to resume: the last event that was shown. */
let position;
/** Lines without a RECEIPT so far, by client message id. */
const unacknowledged = new Map();
let inputEnded = false;

const client = new Client({
  webSocketFactory: () => socketTo(options.gateway, options.transport),
  connectHeaders: { Authorization: `Bearer ${token}` },
  heartbeatIncoming: 10_000,
  heartbeatOutgoing: 10_000,
  reconnectDelay: 1000,
});

client.onConnect = () => {
  client.subscribe("/user/queue/errors", (frame) => {
    const { code, message } = JSON.parse(frame.body);
    console.log(`- refused: ${code}: ${message}`);
    const line = frame.headers["receipt-id"];
    if (unacknowledged.has(line)) acknowledged(line);
  });
  const resume = position && { "after-seq": position.seq, "after-epoch": position.epoch };
  const receipt = randomUUID();
  client.watchForReceipt(receipt, () => console.log(`- connected to ${options.gateway} as ${name}`));
  client.subscribe(`/topic/conversations/${conversation}`, show, { ...resume, receipt });
  for (const [id, line] of unacknowledged) send(id, line);
};
client.onStompError = (frame) => console.log(`- ${frame.headers.code}: ${frame.headers.message}`);
client.onWebSocketClose = () => client.active && console.log("- the connection is lost; trying again");

function show(frame) {
  const event = JSON.parse(frame.body);
  if (event.type === "RESUMED") {
    // The first on every subscription: delivery starts here, even if nothing is ever said.
    position = { seq: String(event.data.after_seq), epoch: String(event.data.epoch) };
    if (!event.data.recovered) console.log("- some lines may be missing here");
    return;
  }
  if (frame.headers.seq) position = { seq: frame.headers.seq, epoch: frame.headers.epoch };
  if (event.type === "MESSAGE") {
    console.log(`${event.actor_id === user.id ? name : event.actor_id}: ${event.data.body}`);
  }
}

function send(id, line) {
  client.watchForReceipt(id, () => acknowledged(id));
  client.publish({
    destination: `/app/conversations/${conversation}/messages`,
    headers: { "content-type": "application/json", receipt: id },
    body: JSON.stringify({ body: line, client_message_id: id }),
  });
}

function acknowledged(id) {
  unacknowledged.delete(id);
  if (inputEnded && unacknowledged.size === 0) client.deactivate();
}

client.activate();
const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  if (!line.trim()) return;
  const id = randomUUID();
  unacknowledged.set(id, line);
  if (client.connected) send(id, line);
});
input.on("close", () => {
  inputEnded = true;
  if (unacknowledged.size === 0) client.deactivate();
});
