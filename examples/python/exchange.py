"""Sends --count messages to a conversation, waits until --total have come, and prints what it saw as JSON:
{"receipts": [seq, …], "received": [{"seq": …, "text": …}, …]}, in the order of arrival."""

import argparse
import json
import os
import sys
import threading

import stomp

import session

# For everything, in seconds.
DEADLINE = 240


class Exchange(stomp.ConnectionListener):
    def __init__(self, options):
        self.options = options
        self.receipts = []
        self.received = []
        self.fault = None
        self.subscribed = threading.Event()
        self.done = threading.Event()
        self.gone = threading.Event()

    def on_receipt(self, frame):
        if frame.headers["receipt-id"] == "subscribed":
            self.subscribed.set()
        elif "seq" in frame.headers:
            self.receipts.append(int(frame.headers["seq"]))
        self.end_when_done()

    def on_message(self, frame):
        event = json.loads(frame.body)
        if event["type"] == "MESSAGE":
            self.received.append({"seq": int(frame.headers["seq"]), "text": event["data"]["body"]})
        self.end_when_done()

    def end_when_done(self):
        if len(self.receipts) >= self.options.count and len(self.received) >= self.options.total:
            self.done.set()

    def on_error(self, frame):
        self.fault = f"{frame.headers.get('code')}: {frame.headers.get('message')}"
        self.subscribed.set()
        self.done.set()

    def on_disconnected(self):
        self.gone.set()
        if not self.done.is_set():
            self.fault = self.fault or "the connection is lost"
            self.subscribed.set()
            self.done.set()


def main():
    parser = argparse.ArgumentParser()
    for name in ["gateway", "conversation", "after-seq", "name"]:
        parser.add_argument(f"--{name}", required=True)
    for name in ["count", "total"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()

    exchange = Exchange(options)
    connection = session.connection_to(options.gateway)
    connection.set_listener("exchange", exchange)
    connection.connect(wait=True, headers={"Authorization": f"Bearer {os.environ['SWITCHBOARD_TOKEN']}"})
    # What the others said before this subscription comes too: nobody has to wait for anybody.
    connection.subscribe(
        f"/topic/conversations/{options.conversation}",
        id="room",
        headers={"after-seq": options.after_seq, "receipt": "subscribed"},
    )
    exchange.subscribed.wait(DEADLINE)
    for number in range(1, options.count + 1):
        if exchange.fault:
            break
        text = f"{options.name} {number}"
        connection.send(
            f"/app/conversations/{options.conversation}/messages",
            json.dumps({"body": text}),
            content_type="application/json",
            headers={"receipt": text},
        )
    if not exchange.done.wait(DEADLINE):
        exchange.fault = f"{len(exchange.receipts)} receipts, {len(exchange.received)} messages in {DEADLINE} s"
    if exchange.fault:
        sys.exit(exchange.fault)
    connection.disconnect()
    # By now the server has closed: a message that came twice would be in the list.
    exchange.gone.wait(10)
    print(json.dumps({"receipts": exchange.receipts, "received": exchange.received}))


main()
