"""Login, and the conversations of who is logged in, over core's REST interface."""

import json
import urllib.error
import urllib.request

import stomp

# The password of the demonstration's people.
DEMO_PASSWORD = "correct horse battery staple"


def call(core, method, path, token=None, body=None):
    """Calls core; refusals are problem documents (RFC 9457) with a stable `code`."""
    request = urllib.request.Request(core + path, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise SystemExit(f"{method} {path}: {problem['code']}: {problem['detail']}") from None


def login(core, name, password):
    """Logs in; gives {"user": …, "access_token": …, …}."""
    return call(core, "POST", "/auth/login", body={"login": name, "password": password})


def conversation_named(core, token, name):
    """The id of a conversation of mine, by its name."""
    for conversation in call(core, "GET", "/api/v1/conversations?limit=100", token)["items"]:
        if conversation["name"] == name:
            return conversation["id"]
    raise SystemExit(f"you are in no conversation named {name}")


def connection_to(gateway, heartbeats=(0, 0)):
    """A connection that is not open yet, to a gateway `host:port`."""
    host, port = gateway.rsplit(":", 1)
    return stomp.WSStompConnection(
        [(host, int(port))],
        ws_path="/ws",
        header={"Sec-WebSocket-Protocol": "v12.stomp"},
        heartbeats=heartbeats,
    )
