"""Clients that write in the subprotocol breadboard.1, and keep at each write until they know what became of it.

Each add has a key, each update a version; what a broken connection leaves in doubt is sent again on the next one,
to whichever board listens on the address by then. In the end check () compares all that they were told with the table.
"""

import asyncio
import contextlib
import json
import random
import threading
import time
import uuid

import websockets

from board import PATH, PATIENCE

WINDOW = 6  # requests of one keeper that wait for their replies
FEW = 30  # messages that a keeper has on the board at most, about


class Message:
    """One that a keeper added, as far as the keeper knows."""

    def __init__(self, author, padding):
        self.key = str(uuid.uuid4())
        self.author = author
        self.padding = padding
        self.text = self.text_of(1)
        self.id = None
        self.version = 1
        self.deleted = False
        self.request = None  # the one under way

    def text_of(self, version):
        return f"{self.key} {version}{self.padding}"


class Request:
    def __init__(self, message, action, text=None):
        self.message = message
        self.action = action
        self.text = text
        self.doubtful = False  # a connection broke after it was sent
        self.again = False  # its reply was lost, or is asked for a second time
        self.ref = None

    def data(self):
        message = self.message
        if self.action == "add message":
            return {"author": message.author, "text": message.text, "key": message.key}
        if self.action == "update message":
            return {"id": message.id, "author": message.author, "text": self.text,
                    "version": message.version}
        return {"id": message.id}


class Keepers:
    """Several keepers against the board at an address. With a seed all that they choose is chosen again."""

    def __init__(self, address, count=6, seed=None, name="keeper", padding=""):
        self.address = address
        self._padding = padding  # of each text
        self.acknowledged = 0  # writes
        self.doubts = 0  # requests whose connection broke
        self.retries = 0  # requests sent again
        self.refusals = 0  # unavailable or busy
        self.close_codes = []
        self.latest = 0.0  # when the newest of the requests that were acknowledged had been sent
        self.messages = []  # all that were tried
        self.refused = []  # given up after "unavailable": must not be there
        self.faults = []
        self.slowest = 0.0  # the longest that a request waited for its reply, on one connection
        self._random = random.Random(seed)
        self._ending = False
        self._abandoned = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(name, count), daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._abandoned = kind is not None  # what went wrong first is what counts
        if not kind:
            self.stop()
        self._ending = True

    def stop(self):
        """Waits until every request that was sent has been settled."""
        self._ending = True
        self._thread.join(3 * PATIENCE)
        assert not self._thread.is_alive(), "requests that nobody answers"

    def wait(self, count, patience=PATIENCE):
        """Waits until so many more writes have been acknowledged."""
        goal = self.acknowledged + count
        self._await(lambda: self.acknowledged >= goal, f"{count} more writes", patience)

    def wait_anew(self):
        """Waits until a write that is sent from now on has been acknowledged; returns how long that took."""
        began = time.monotonic()
        self._await(lambda: self.latest > began, "a new write", PATIENCE)
        return time.monotonic() - began

    def _await(self, condition, what, patience):
        deadline = time.monotonic() + patience
        while not condition():
            assert not self.faults, self.faults[0]
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.005)

    def check(self, rows):
        """Compares rows of (key, id, author, text, version) with what the keepers were told.
        Returns how many acknowledged messages are lost, stored twice, or differ."""
        assert not self.faults, self.faults[0]
        stored = {}
        doubled = 0
        for key, number, *rest in rows:
            doubled += key in stored
            stored[key] = (number, *rest)
        texts = [row[2].split()[0] for row in stored.values()]
        doubled += len(texts) - len(set(texts))
        lost = different = 0
        for message in self.messages:
            row = stored.pop(message.key, None)
            if message in self.refused or message.deleted:
                different += row is not None  # it was said not to be there
            elif message.id is None:
                pass  # never acknowledged: both are right
            elif not row:
                lost += 1
            else:
                different += row != (message.id, message.author, message.text, message.version)
        different += len(stored)
        return {"lost": lost, "doubled": doubled, "different": different}

    def _run(self, name, count):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(
            asyncio.gather(*(self._keep(f"{name} {number}") for number in range(count))))

    async def _keep(self, author):
        keeper = {"author": author, "messages": [], "requests": [], "refs": 0}
        try:
            while not self._abandoned and (not self._ending or keeper["requests"]):
                try:
                    async with websockets.connect(f"ws://{self.address}{PATH}", max_size=None,
                                                  subprotocols=["breadboard.1"],
                                                  open_timeout=5, close_timeout=1) as socket:
                        await self._talk(keeper, socket)
                except (OSError, websockets.InvalidHandshake, websockets.InvalidMessage,
                        asyncio.TimeoutError):
                    await asyncio.sleep(0.02)  # the board is gone
                except websockets.ConnectionClosed as closed:
                    self.close_codes.append(closed.rcvd.code if closed.rcvd else None)
                    await asyncio.sleep(0.02)
        except Exception as fault:  # raised in wait () or check ()
            self.faults.append(fault)

    async def _talk(self, keeper, socket):
        """Sends again what is in doubt, then goes on, until the connection ends."""
        waiting = {}  # requests by ref
        try:
            for request in keeper["requests"]:
                await self._send(keeper, socket, waiting, request)
            while waiting or not self._ending:
                while not self._ending and len(waiting) < WINDOW:
                    request = self._choose(keeper)
                    keeper["requests"].append(request)
                    await self._send(keeper, socket, waiting, request)
                frame = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
                request = waiting.pop(frame.get("ref"), None)
                if request:
                    self.slowest = max(self.slowest, time.monotonic() - request.sent)
                    await self._settle(keeper, socket, waiting, request, frame)
        except asyncio.TimeoutError:
            raise AssertionError(f"no answer in {PATIENCE} s") from None
        finally:
            for request in waiting.values():
                request.doubtful = True
                self.doubts += 1

    async def _send(self, keeper, socket, waiting, request):
        keeper["refs"] += 1
        request.ref = str(keeper["refs"])
        request.sent = time.monotonic()
        waiting[request.ref] = request
        await socket.send(json.dumps({"action": request.action, "ref": request.ref,
                                      "data": request.data()}))

    def _choose(self, keeper):
        rested = [message for message in keeper["messages"] if not message.request]
        chance = self._random.random()
        if rested and len(keeper["messages"]) > FEW:
            request = Request(rested[0], "delete message")
        elif rested and chance < 0.3:
            message = self._random.choice(rested)
            request = Request(message, "update message", message.text_of(message.version + 1))
        else:
            message = Message(keeper["author"], self._padding)
            keeper["messages"].append(message)
            self.messages.append(message)
            request = Request(message, "add message")
        request.message.request = request
        return request

    async def _settle(self, keeper, socket, waiting, request, frame):
        message = request.message
        code = "ok" if frame["status"] == "ok" else frame["error"]["code"]
        if code in ("unavailable", "busy"):
            self.refusals += 1
            if code == "unavailable" and request.action == "add message" and not (
                    request.doubtful or request.again) and self._random.random() < 0.3:
                self.refused.append(message)
                self._forget(keeper, request)
                return
            await asyncio.sleep(0.02)
            self.retries += 1
            await self._send(keeper, socket, waiting, request)
            return
        self._note(request, code, frame)
        if request.action == "add message" and not request.again and self._random.random() < 0.1:
            request.again = True  # the same key has the same id, however often it is sent
            await self._send(keeper, socket, waiting, request)
            return
        self.acknowledged += 1
        self.latest = max(self.latest, request.sent)
        self._forget(keeper, request)

    @staticmethod
    def _note(request, code, frame):
        """Keeps what a reply says; what it must not say is a fault."""
        message = request.message
        done = code == "ok"
        if request.doubtful and request.action == "update message":
            done = done or (code == "conflict" and f">{request.text}<" in frame["html"])
        elif request.doubtful and request.action == "delete message":
            done = done or code == "not-found"
        assert done, f"{request.action} {request.data()}: {frame}"
        if request.action == "add message":
            assert message.id in (None, frame["id"]), f"{message.key} has two ids: {frame}"
            message.id = frame["id"]
        elif request.action == "update message":
            message.text = request.text
            message.version += 1
        else:
            message.deleted = True

    @staticmethod
    def _forget(keeper, request):
        request.message.request = None
        keeper["requests"].remove(request)
        if request.message.deleted or request.message.id is None:
            with contextlib.suppress(ValueError):
                keeper["messages"].remove(request.message)


ROWS = "SELECT key::text, id, author, text, version FROM messages"
