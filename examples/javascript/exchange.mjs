// Sends --count messages to a conversation, waits until --total have come, and prints what it saw as JSON:
// {"receipts": [seq, …], "received": [{"seq": …, "text": …}, …]}, in the order of arrival.
import { parseArgs } from "node:util";
import { Client } from "@stomp/stompjs";
import { socketTo } from "./socket.mjs";

const { values: options } = parseArgs({
  options: {
    gateway: { type: "string" },
    transport: { type: "string", multiple: true },
    conversation: { type: "string" },
    "after-seq": { type: "string" },
    name: { type: "string" },
    count: { type: "string" },
    total: { type: "string" },
  },
});
const count = Number(options.count);
const total = Number(options.total);
const receipts = [];
const received = [];

const client = new Client({
  webSocketFactory: () => socketTo(options.gateway, options.transport),
  connectHeaders: { Authorization: `Bearer ${process.env.SWITCHBOARD_TOKEN}` },
  reconnectDelay: 0,
});

client.onConnect = () => {
  // What the others said before this subscription comes too: nobody has to wait for anybody.
  const headers = { "after-seq": options["after-seq"], receipt: "subscribed" };
  client.watchForReceipt("subscribed", sendAll);
  client.subscribe(`/topic/conversations/${options.conversation}`, take, headers);
};
client.onStompError = (frame) => fail(`${frame.headers.code}: ${frame.headers.message}`);
client.onWebSocketClose = (event) => client.active && fail(`closed: ${event.code} ${event.reason}`);

function sendAll() {
  for (let number = 1; number <= count; number += 1) {
    const text = `${options.name} ${number}`;
    client.watchForReceipt(text, (frame) => {
      receipts.push(Number(frame.headers.seq));
      endWhenDone();
    });
    client.publish({
      destination: `/app/conversations/${options.conversation}/messages`,
      headers: { "content-type": "application/json", receipt: text },
      body: JSON.stringify({ body: text }),
    });
  }
}

function take(frame) {
  const event = JSON.parse(frame.body);
  if (event.type !== "MESSAGE") return;
  received.push({ seq: Number(frame.headers.seq), text: event.data.body });
  endWhenDone();
}

async function endWhenDone() {
  if (receipts.length < count || received.length < total) return;
  await client.deactivate();
  // By now the server has closed: a message that came twice would be in the list.
  console.log(JSON.stringify({ receipts, received }));
}

function fail(reason) {
  console.error(reason);
  process.exit(1);
}

client.activate();
