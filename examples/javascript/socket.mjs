// The way to a gateway.
import SockJS from "sockjs-client";
import WebSocket from "ws";

/**
 * A WebSocket to `ws://…/ws`; for `http://…/ws` SockJS, which finds another way where WebSockets do not get through.
 * `transports`: those that it may use, such as `["xhr-streaming", "xhr-polling"]`; without, all that there are.
 */
export function socketTo(gateway, transports) {
  if (gateway.startsWith("http")) return new SockJS(gateway, null, transports && { transports });
  return new WebSocket(gateway, ["v12.stomp"]);
}
