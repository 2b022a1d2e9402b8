"""A client that asks in the subprotocol breadboard.1, one thing after the other."""

import json
import time

from board import PATIENCE


class Asker:
    """A client of breadboard.1 that asks, and waits for the reply."""

    def __init__(self, board):
        self.client = board.client(subprotocols=["breadboard.1"])
        self.refs = 0
        self.list = None  # the newest that came

    def send(self, action, **data):
        self.refs += 1
        self.client.send_raw(json.dumps({"action": action, "ref": str(self.refs), "data": data}))
        return str(self.refs)

    def reply(self, ref):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            frame = self.client.frame()
            if frame.get("selector") == "#messages__list":
                self.list = frame
            if frame.get("ref") == ref:
                return frame
        raise AssertionError(f"no reply to {ref}")

    def ask(self, action, **data):
        """The code of the reply, and the reply."""
        frame = self.reply(self.send(action, **data))
        return ("ok" if frame["status"] == "ok" else frame["error"]["code"]), frame
