"""A terminal chat: python3 chat.py NAME [--core URL] [--gateway HOST:PORT]"""

import argparse
import json
import sys
import threading
import time
import uuid

import stomp

import session


class Chat(stomp.ConnectionListener):
    def __init__(self, name, core, gateway):
        self.name = name
        self.gateway = gateway
        answer = session.login(core, name, session.DEMO_PASSWORD)
        self.user, self.token = answer["user"], answer["access_token"]
        self.conversation = session.conversation_named(core, self.token, "general")
        # Where to resume: seq and epoch of the last event that was shown.
        self.position = None
        # Lines without a RECEIPT so far, by client message id.
        self.unacknowledged = {}
        self.changed = threading.Condition()
        self.leaving = False
        self.connection = session.connection_to(gateway, heartbeats=(10_000, 10_000))
        self.connection.set_listener("chat", self)

    def connect(self):
        self.connection.connect(wait=True, headers={"Authorization": f"Bearer {self.token}"})
        self.connection.subscribe("/user/queue/errors", id="errors")
        resume = {}
        if self.position:
            resume = {"after-seq": self.position[0], "after-epoch": self.position[1]}
        destination = f"/topic/conversations/{self.conversation}"
        self.connection.subscribe(destination, id="room", headers={"receipt": "subscribed", **resume})
        with self.changed:
            lines = list(self.unacknowledged.items())
        for line_id, line in lines:
            self.send(line_id, line)

    def say(self, line):
        line_id = str(uuid.uuid4())
        with self.changed:
            self.unacknowledged[line_id] = line
        if self.connection.is_connected():
            self.send(line_id, line)

    def send(self, line_id, line):
        self.connection.send(
            f"/app/conversations/{self.conversation}/messages",
            json.dumps({"body": line, "client_message_id": line_id}),
            content_type="application/json",
            headers={"receipt": line_id},
        )

    def leave(self):
        """Waits until every line is acknowledged."""
        with self.changed:
            self.changed.wait_for(lambda: not self.unacknowledged, timeout=30)
        self.leaving = True
        self.connection.disconnect()

    # What the library calls, from its own thread.

    def on_message(self, frame):
        if "code" in frame.headers:
            print(f"- refused: {frame.headers['code']}: {json.loads(frame.body)['message']}", flush=True)
            self.acknowledged(frame.headers.get("receipt-id"))
            return
        event = json.loads(frame.body)
        if event["type"] == "RESUMED":
            # The first on every subscription: delivery starts here, even if nothing is ever said.
            data = event["data"]
            self.position = (data["after_seq"], data["epoch"])
            if not data["recovered"]:
                print("- some lines may be missing here", flush=True)
            return
        if "seq" in frame.headers:
            self.position = (frame.headers["seq"], frame.headers["epoch"])
        if event["type"] == "MESSAGE":
            sender = self.name if event["actor_id"] == self.user["id"] else event["actor_id"]
            print(f"{sender}: {event['data']['body']}", flush=True)

    def on_receipt(self, frame):
        if frame.headers["receipt-id"] == "subscribed":
            print(f"- connected to {self.gateway} as {self.name}", flush=True)
        self.acknowledged(frame.headers["receipt-id"])

    def acknowledged(self, line_id):
        with self.changed:
            self.unacknowledged.pop(line_id, None)
            self.changed.notify_all()

    def on_error(self, frame):
        print(f"- {frame.headers.get('code')}: {frame.headers.get('message')}", flush=True)

    def on_disconnected(self):
        if not self.leaving:
            print("- the connection is lost; trying again", flush=True)
            threading.Thread(target=self.reconnect, daemon=True).start()

    def reconnect(self):
        while not self.connection.is_connected():
            time.sleep(1)
            try:
                self.connect()
            except stomp.exception.ConnectFailedException:
                pass


def main():
    parser = argparse.ArgumentParser(description="A terminal chat")
    parser.add_argument("name", nargs="?", default="bob")
    parser.add_argument("--core", default="http://127.0.0.1:8081")
    parser.add_argument("--gateway", default="127.0.0.1:8082")
    options = parser.parse_args()
    chat = Chat(options.name, options.core, options.gateway)
    chat.connect()
    for line in sys.stdin:
        if line.strip():
            chat.say(line.rstrip("\n"))
    chat.leave()


main()
