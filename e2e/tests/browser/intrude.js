// A page whose origin the gateway does not allow tries every way in, and reports what came of each.
const plan = await (await fetch("plan.json")).json();

function report(what) {
  return fetch("report", { method: "POST", body: JSON.stringify(what) });
}
addEventListener("error", (event) => report({ kind: "failed", why: event.message }));

/** sockjs-client, by each transport. */
function bySockJs(transport) {
  return new Promise((resolve) => {
    const socket = new SockJS(plan.gateway, null, { transports: [transport] });
    socket.onopen = () => resolve("open");
    socket.onclose = (event) => resolve(`close ${event.code} ${event.reason}`);
  });
}

/** A WebSocket without asking for /info first. */
function byWebSocket(path) {
  return new Promise((resolve) => {
    const socket = new WebSocket(plan.gateway.replace("http", "ws") + path, ["v12.stomp"]);
    socket.onopen = () => resolve("open");
    socket.onclose = (event) => resolve(`close ${event.code}`);
  });
}

/** An answer that this page may read. */
async function byFetch(path) {
  try {
    return `${(await fetch(plan.gateway + path, { method: "POST" })).status}`;
  } catch (error) {
    return error.name;
  }
}

/** The gateway's own page, which would speak for this one. The test sees whether it loads the client library. */
function byIframe() {
  return new Promise((resolve) => {
    const iframe = document.createElement("iframe");
    iframe.onload = () => resolve("loaded");
    iframe.src = `${plan.gateway}/iframe.html`;
    document.body.append(iframe);
  });
}

/** Scripts are loaded without an Origin: this page hears, but what it says must not be taken. */
async function byJsonp() {
  const session = `${plan.gateway}/000/${crypto.randomUUID()}`;
  const poll = () =>
    new Promise((resolve) => {
      globalThis.hear = resolve;
      const script = document.createElement("script");
      script.onerror = () => resolve("no script");
      script.src = `${session}/jsonp?c=hear&${Math.random()}`;
      document.body.append(script);
    });
  const heard = [await poll()];
  const connect = `CONNECT\naccept-version:1.2\nhost:x\nAuthorization:Bearer ${plan.token}\n\n\0`;
  await fetch(`${session}/jsonp_send`, {
    method: "POST",
    mode: "no-cors",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: `d=${encodeURIComponent(JSON.stringify([connect]))}`,
  });
  heard.push(await poll());
  return heard.map((frame) => frame.split("\\n")[0]).join(" ");
}

for (const transport of plan.transports) {
  await report({ kind: "refused", transport, events: [await bySockJs(transport)] });
}
const others = {
  "plain websocket": byWebSocket(""),
  "raw websocket": byWebSocket("/websocket"),
  "sockjs websocket": byWebSocket("/000/intruder/websocket"),
  xhr: byFetch("/000/intruder/xhr"),
  iframe: byIframe(),
  jsonp: byJsonp(),
};
for (const [transport, outcome] of Object.entries(others)) {
  await report({ kind: "refused", transport, events: [await outcome] });
}
await report({ kind: "done" });
