"""Random histories of many clients, forms and somebody in psql, on two boards of one database, against a model.

The model is a list of rows, and what was deleted. After each step every client has got what it is owed: each
reply once, no page that never was, none that is older than it has seen of that page, and in the end the newest.
HISTORIES=500 in the environment plays so many that nobody has played before; without it a few are played, always
the same.
"""

import contextlib
import functools
import html
import json
import os
import re
import time
import traceback
import urllib.parse
import uuid

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from board import PATH, PATIENCE, Board, Fresh
from conftest import stop_all
from lists import TEXT, content, framed, served

HISTORIES = int(os.environ.get("HISTORIES", 0))
PAGE_SIZE = 3
AUTHOR_MAX, TEXT_MAX = 12, 20
LOG_END = 4000  # characters of a board's log, told when a history fails
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a" \
        "\u2028\u2029\u202f\u205f\u3000"

CODE = re.compile(r'data-code="([a-z-]+)"')
AREA = re.compile(r'name="message"[^>]*>\n(.*?)</textarea>', re.S)
STATUS = {"ok": 303, "not-found": 404, "conflict": 409}
VERSION = re.compile(r'name="version" value="(\d+)"')


def stored(text):
    """A field as the board stores it."""
    return text.strip(WHITE).replace("\r\n", "\n")


def fits(text, most):
    return "\0" not in text and 1 <= len(stored(text)) <= most


class Row:
    def __init__(self, number, era, author, text, key=None):
        self.id, self.era, self.author, self.text, self.key = number, era, author, text, key
        self.version = 1


class Model:
    """The board as one would write it in a minute."""

    def __init__(self):
        self.rows = []
        self.gone = {}  # id: [key of the deletion, row or None once restored, key of the add]
        self.states = [()]  # Each that there was: (id, author, text) of each row, newest first
        self.maker = None  # The board through which is written now; None: somebody else's hand
        self.makers = [None]  # Of each state

    def row(self, number):
        return next((row for row in self.rows if row.id == number), None)

    def changed(self):
        """What was done is a new state."""
        self.rows.sort(key=lambda row: (row.era, row.id), reverse=True)
        self.makers.append(self.maker)
        self.states.append(tuple((row.id, row.author, row.text) for row in self.rows))

    def pages(self, state):
        return max(1, -(-len(self.states[state]) // PAGE_SIZE))

    def page(self, number, state=-1):
        """The page, or the last one, as content () has it."""
        pages = self.pages(state)
        number = min(max(number, 1), pages)
        return framed(number, pages, self.states[state][(number - 1) * PAGE_SIZE:number * PAGE_SIZE])

    def by_key(self, key):
        """The id that the key has stored, or None."""
        for row in self.rows:
            if row.key == key:
                return row.id
        return next((number for number, gone in self.gone.items() if gone[2] == key), None)

    def add(self, number, author, text, key=None, era=1):
        self.rows.append(Row(number, era, author, text, key))
        self.changed()

    def update(self, number, author, text, version=None):
        row = self.row(number)
        if not row:
            return "not-found"
        if version not in (None, row.version):
            return "conflict"
        row.author, row.text, row.version = author, text, row.version + 1
        self.changed()
        return "ok"

    def delete(self, number, key=None):
        row, gone = self.row(number), self.gone.get(number)
        if key and gone and gone[0] == key:
            return "ok"  # Done before
        if not row:
            return "not-found"
        self.rows.remove(row)
        if key or row.key:
            self.gone[number] = [key, row if key else None, row.key]
        self.changed()
        return "ok"

    def restore(self, number, key):
        gone = self.gone.get(number)
        if not gone or gone[0] != key:
            return "not-found"
        if gone[1]:
            self.rows.append(gone[1])
            gone[1] = None
            self.changed()
        return "ok"


class Viewer:
    """A client, and what it was shown."""

    def __init__(self, client, board, replies, page, seen):
        self.client, self.board, self.replies = client, board, replies
        self.page = page
        self.since = seen  # The state, by number, before which it was not there
        self.seen = {}  # Of each page, the state in which it was shown last
        self.shown = None  # The content that it was shown last


def texts(most):
    """What people type, and what nobody should: a bit too long at times."""
    some = st.sampled_from(["", " ", "a", "<b>&amp;\"'", "a\r\nb", "\r\r\n", " \u3000x\u2028 ", "a\0b", "\u200b",
                            "{{text}}", "\U0001f600" * most, "x" * most, "x" * (most + 1), " " * most + "y"])
    return some | st.text(st.characters(blacklist_categories=["Cs"]), max_size=most + 2)


AUTHORS, TEXTS = texts(AUTHOR_MAX), texts(TEXT_MAX)
GOOD_AUTHORS, GOOD_TEXTS = (strategy.filter(lambda text, most=most: fits(text, most))
                            for strategy, most in ((AUTHORS, AUTHOR_MAX), (TEXTS, TEXT_MAX)))
INDEX = st.integers(0, 11)  # One of those that there are, modulo their number
KINDS = st.sampled_from(["add", "add", "update", "list", "bad"])
PAGES = st.integers(-1, 6) | st.sampled_from(["2", "007", 10**30, "9" * 30])
BAD = st.sampled_from([
    ("", "malformed"), ("{", "malformed"), ("[]", "malformed"), ("\U0001f600", "malformed"),
    ('{"action":"sing","data":{}}', "malformed"), ('{"action":"add message"}', "malformed"),
    ('{"action":"list messages","data":{"page":1.5}}', "malformed"),
    ('{"action":"list messages","data":{"page":1,"page":2}}', "malformed"),
    ('{"action":"add message","data":{"author":"a"}}', "invalid"),
    ('{"action":"add message","data":{"author":"a","text":"b","key":"c"}}', "invalid"),
    ('{"action":"update message","data":{"author":"a","text":"b"}}', "invalid"),
    ('{"action":"restore message","data":{"id":1}}', "invalid"),
    ('{"action":"delete message","data":{"id":0}}', "not-found"),
    ('{"action":"open edit page","data":{"id":"99999999999999999999"}}', "not-found"),
])


def noted(function):
    """Notes the step, and what made it fail. Hypothesis tells only of the shortest history that still fails when it
    is played again, and of none when none does."""

    @functools.wraps(function)
    def play(self, *args, **draws):
        told = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in draws.items()]
        self.steps.append(f"{time.monotonic() - self.began:7.3f} {function.__name__}({', '.join(told)})")
        try:
            return function(self, *args, **draws)
        except Exception:
            self.tell()
            raise

    return play


def step(**draws):
    """A rule that is noted."""
    return lambda function: rule(**draws)(noted(function))


class Histories(RuleBasedStateMachine):
    boards = ()
    database = None
    failure = None  # Of the first history that failed: what, and what led to it

    def __init__(self):
        super().__init__()
        self.began = time.monotonic()
        self.steps = []
        self.model = Model()
        self.viewers = []
        self.etags = {}  # By content: what shows the same is the same, on each board
        self.keys = []  # Of adds
        self.deletions = []  # (id, key)
        self.floor = [0] * len(self.boards)  # The state that each board has surely reached
        self.refs = 0
        self.made = 0  # Keys
        self.empty()

    @noted
    def empty(self):
        self.sql("TRUNCATE messages, breadboard_deleted RESTART IDENTITY")
        for index in range(len(self.boards)):
            self.catch_up(index)

    def tell(self):
        """Keeps what is known of the exception at hand, unless another history has failed before."""
        if Histories.failure:
            return
        viewers = [f"on board {viewer.board}, page {viewer.page}, {'with' if viewer.replies else 'without'} replies: "
                   f"{viewer.shown}" for viewer in self.viewers]
        logs = [f"Board {index}, exit status {board.process.poll()}:\n{board.logged()[-LOG_END:]}"
                for index, board in enumerate(self.boards)]
        Histories.failure = "\n".join([
            traceback.format_exc(), f"after {time.monotonic() - self.began:.3f} s, and these steps:", *self.steps,
            f"State {self.now}: {self.model.states[-1]}", f"Boards have reached {self.floor}", *viewers, *logs])

    def sql(self, statement, *values):
        cursor = self.database.cursor()
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else None

    # ------------------------------------------------------------------------
    # What was received, against the model

    @property
    def now(self):
        return len(self.model.states) - 1

    def place(self, viewer, frame, pages, since):
        """Finds the state that a list frame shows, none before since. The viewer may be on the pages."""
        assert set(frame) - {"ref", "status"} == {"selector", "html", "page", "pages", "etag"}, frame
        shown = content(frame["page"], frame["pages"], frame["html"])
        assert self.etags.setdefault(shown, frame["etag"]) == frame["etag"], frame
        since = max(since, viewer.since, viewer.seen.get(frame["page"], 0))
        for state in range(since, self.now + 1):
            exact = any(self.model.page(page, state) == shown for page in pages)
            if exact or self.is_mixed(viewer.board, pages, shown, state):
                viewer.page, viewer.shown = frame["page"], shown
                viewer.seen[viewer.page] = state
                if exact:
                    self.floor[viewer.board] = max(self.floor[viewer.board], state)
                return
        states = [self.model.page(page, state) for page in pages for state in range(since, self.now + 1)]
        raise AssertionError(f"on {pages}, since {since}: got {shown}; there was {states}")

    def is_mixed(self, board, pages, shown, state):
        """Whether these are the rows of the state under an older number of pages. A board that hears of what
        others write counts and reads in two statements, and others may write in between; then it hears of that
        as well, and shows it as it is, so a page like this is never the last word."""
        recent = range(max(state - 16, 0), state)
        foreign = any(self.model.makers[older + 1] != board for older in recent)
        counts = {self.model.pages(older) for older in recent}
        number, count, rows, *_ = shown
        start = (number - 1) * PAGE_SIZE
        return (foreign and count in counts and rows == self.model.states[state][start:start + PAGE_SIZE]
                and any(number == min(max(page, 1), count) for page in pages)
                and shown == framed(number, count, rows))

    def unasked(self, viewer, frame, own=False):
        """Takes a list frame that is no reply. own: it may come because of what the viewer wrote."""
        assert frame["selector"] == "#messages__list" and "ref" not in frame, frame
        before = viewer.shown
        self.place(viewer, frame, {viewer.page, 1} if own else {viewer.page}, 0)
        assert own or viewer.shown != before, f"what has not changed came again: {frame}"

    def settle(self):
        """Waits until everybody has got what they are owed, and each board has heard of everything."""
        for viewer in self.viewers:
            while viewer.shown != self.model.page(viewer.page):
                self.unasked(viewer, viewer.client.frame())
        for index in range(len(self.boards)):
            if self.floor[index] < self.now:
                self.catch_up(index)

    def catch_up(self, index):
        """Waits until the board serves the newest state of each page."""
        deadline = time.monotonic() + PATIENCE
        for number in range(1, self.model.pages(-1) + 1):
            while self.served(index, number) != self.model.page(number):
                assert time.monotonic() < deadline, f"board {index} never shows {self.model.page(number)}"
                time.sleep(0.002)
        self.floor[index] = self.now

    def served(self, index, number):
        """A page as HTTP has it."""
        shown, etag = served(self.boards[index], number)
        assert self.etags.get(shown, etag) == etag
        return shown

    # ------------------------------------------------------------------------
    # Requests and their answers

    def new_key(self):
        self.made += 1
        return str(uuid.UUID(int=self.made, version=4))

    def send(self, viewer, action, data, cuts=()):
        """Sends a request, cut in fragments at the places; returns its ref."""
        request = {"action": action, "data": data}
        if viewer.replies:
            self.refs += 1
            request["ref"] = f"r{self.refs}"
        text = json.dumps(request, ensure_ascii=self.refs % 2 == 0)
        places = sorted({0, *(cut for cut in cuts if cut < len(text))})
        pieces = [text[start:end] for start, end in zip(places, [*places[1:], None])]
        viewer.client.send_raw(pieces if len(pieces) > 1 else text)
        return request.get("ref")

    def reply(self, viewer, ref):
        """The reply to the ref, and the frames before it."""
        frames = []
        while True:
            frame = viewer.client.frame()
            if frame.get("ref") == ref:
                return frame, frames
            frames.append(frame)

    def refused(self, viewer, ref, code):
        """The next frame refuses the request with the code; returns it."""
        if viewer.replies:
            frame, before = self.reply(viewer, ref)
            assert not before and frame["status"] == "error", (before, frame)
            assert frame["error"]["code"] == code, (frame, code)
        else:
            frame = viewer.client.frame()
            assert set(frame) == {"selector", "html"}, frame
            assert CODE.search(frame["html"]).group(1) == code, (frame, code)
        return frame

    def until_answered(self, viewer, ref):
        """The list frames that come until the request is answered. Those without replies are told by another
        answer, which comes behind it."""
        if viewer.replies:
            frame, frames = self.reply(viewer, ref)
            return [*frames, frame]
        self.send(viewer, "open edit page", {"id": 0})
        frames = [viewer.client.frame()]
        while frames[-1]["selector"] == "#messages__list":
            frames.append(viewer.client.frame())
        assert CODE.search(frames.pop()["html"]).group(1) == "not-found"
        return frames

    def owed_nothing(self, viewer):
        """The viewer has no frame to come for what it has sent: the next one is for what it sends now."""
        self.refused(viewer, self.send(viewer, "open edit page", {"id": 0}), "not-found")

    def done(self, viewer, ref, number, page):
        """A write is done: its ok comes behind the list that shows it; the plain client gets the list, be it
        changed or not. The viewer is on the page then. number: the message, or a function that tells, once
        it is stored, and brings it into the model."""
        if viewer.replies:
            frame, before = self.reply(viewer, ref)
            number = number() if callable(number) else number
            assert frame == {"ref": ref, "status": "ok", "id": number}, (frame, number)
        else:
            before = [viewer.client.frame()]
            number = number() if callable(number) else number
        for frame in before:
            self.unasked(viewer, frame, own=True)
        self.floor[viewer.board] = max(self.floor[viewer.board], self.now)
        expected = self.model.page(page)
        assert not viewer.replies or viewer.shown == expected, (viewer.shown, expected)
        while viewer.shown != expected:
            self.unasked(viewer, viewer.client.frame(), own=True)

    def bring_in(self, author, text, key=None, era=1):
        """Finds the message that was added last, and adds it to the model; returns its id."""
        known = {row.id for row in self.model.rows}
        (number,) = {number for (number,) in self.sql("SELECT id FROM messages")} - known
        self.model.add(number, author, text, key, era)
        return number

    def add(self, viewer, data, cuts=()):
        known = "key" in data and self.model.by_key(data["key"])
        fields = stored(data["author"]), stored(data["text"]), data.get("key")
        ref = self.send(viewer, "add message", data, cuts)
        self.done(viewer, ref, known or (lambda: self.bring_in(*fields)), 1)

    def change(self, viewer, action, data, outcome):
        """Sends a write that is not an add, and takes its answer, which the model has told."""
        ref = self.send(viewer, action, data)
        if outcome == "ok":
            self.done(viewer, ref, data["id"], viewer.page)
            if action == "delete message" and "key" in data:  # It can be undone however long the history takes
                self.sql("UPDATE breadboard_deleted SET deleted_at = 'infinity' WHERE deletion = %s", data["key"])
            return
        frame = self.refused(viewer, ref, outcome)
        if outcome == "conflict" and viewer.replies:
            row = self.model.row(data["id"])
            assert frame["selector"] == f"#message--{row.id}"
            assert VERSION.search(frame["html"]).group(1) == str(row.version)
            assert TEXT.search(frame["html"]) is None or \
                html.unescape(TEXT.search(frame["html"]).group(1)) == row.text

    def known_id(self, index):
        """The id of a message that is or was there, or of none."""
        numbers = sorted({row.id for row in self.model.rows} | set(self.model.gone)) + [999]
        return numbers[index % len(numbers)]

    def row(self, index):
        return self.model.rows[index % len(self.model.rows)]

    def viewer(self, index, replies=None):
        """One of the viewers, who acts now; None: there is none."""
        choice = [viewer for viewer in self.viewers if replies in (None, viewer.replies)]
        if not choice:
            return None
        self.model.maker = choice[index % len(choice)].board
        return choice[index % len(choice)]

    def board(self, index):
        """One of the boards, by number, through which somebody acts now."""
        self.model.maker = index % len(self.boards)
        return self.model.maker

    # ------------------------------------------------------------------------
    # Coming, looking, going

    @initialize(rows=st.integers(0, 8), viewers=st.lists(st.tuples(INDEX, st.booleans()), max_size=4))
    @noted
    def begin(self, rows, viewers):
        if rows:
            self.somebody_inserts(rows, 1)
        for board, replies in [(0, True), *viewers]:
            self.connect(board, replies, None, False)

    @precondition(lambda self: len(self.viewers) < 6)
    @step(board=INDEX, replies=st.booleans(), page=st.none() | st.integers(0, 5), has_it=st.booleans())
    def connect(self, board, replies, page, has_it):
        board %= len(self.boards)
        expected = self.model.page(page or 1)
        etag = self.etags.get(expected) if has_it else None
        query = "&".join(([] if page is None else [f"page={page}"]) + ([f"etag={etag}"] if etag else []))
        client = self.boards[board].silent_client(
            path=PATH + (f"?{query}" if query else ""),
            subprotocols=["breadboard.1"] if replies else None)
        viewer = Viewer(client, board, replies, page or 1, self.floor[board])
        if etag:
            viewer.page, viewer.shown = expected[0], expected
        if etag and viewer.page > 1:  # The board asks the database whether it is news, and writes must not come first
            self.owed_nothing(viewer)
        self.viewers.append(viewer)
        self.settle()

    @precondition(lambda self: self.viewers)
    @step(viewer=INDEX, aborts=st.booleans())
    def disconnect(self, viewer, aborts):
        viewer = self.viewer(viewer)
        self.viewers.remove(viewer)
        if aborts:
            viewer.client.abort()
        else:
            viewer.client.close()

    @precondition(lambda self: self.viewers)
    @step(viewer=INDEX, page=PAGES, has_it=st.booleans())
    def look(self, viewer, page, has_it):
        viewer = self.viewer(viewer)
        expected = self.model.page(int(page))
        etag = self.etags.get(expected) if has_it else None
        data = {"page": page, "etag": etag} if etag else {"page": page}
        ref = self.send(viewer, "list messages", data)
        if etag and viewer.replies:
            frame, before = self.reply(viewer, ref)
            assert not before and frame == {"ref": ref, "status": "ok", "page": expected[0],
                                            "pages": expected[1], "etag": etag}, (before, frame)
        if etag:
            viewer.page, viewer.shown = expected[0], expected
            viewer.seen[viewer.page] = self.now
            if not viewer.replies:  # Else a write from elsewhere might come first, and make the page news to it
                self.owed_nothing(viewer)
            return
        frame = viewer.client.frame()
        assert (frame.get("ref"), frame.get("status")) == (ref, ref and "ok"), frame
        self.place(viewer, frame, {int(page)}, self.floor[viewer.board])
        assert viewer.shown == expected

    @precondition(lambda self: self.viewers)
    @step(viewer=INDEX, message=INDEX)
    def open_form(self, viewer, message):
        viewer, number = self.viewer(viewer), self.known_id(message)
        row = self.model.row(number)
        ref = self.send(viewer, "open edit page", {"id": number})
        if not row:
            self.refused(viewer, ref, "not-found")
            return
        frame = viewer.client.frame()
        assert (frame["selector"], frame.get("ref")) == (f"#message--{number}", ref), frame
        assert VERSION.search(frame["html"]).group(1) == str(row.version)
        assert html.unescape(AREA.search(frame["html"]).group(1)) == row.text

    # ------------------------------------------------------------------------
    # Writing

    @precondition(lambda self: self.viewers)
    @step(viewer=INDEX, author=AUTHORS, text=TEXTS, old_key=st.none() | INDEX, keyed=st.booleans(),
          cuts=st.lists(st.integers(1, 120), max_size=3))
    def adds(self, viewer, author, text, old_key, keyed, cuts):
        viewer = self.viewer(viewer)
        data = {"author": author, "text": text}
        if keyed and old_key is not None and self.keys:
            data["key"] = self.keys[old_key % len(self.keys)]
        elif keyed:
            data["key"] = self.new_key()
        if not (fits(author, AUTHOR_MAX) and fits(text, TEXT_MAX)):
            self.refused(viewer, self.send(viewer, "add message", data, cuts), "invalid")
            return
        self.add(viewer, data, cuts)
        if keyed:
            self.keys.append(data["key"])
        self.settle()

    @precondition(lambda self: self.viewers)
    @step(viewer=INDEX, message=INDEX, author=AUTHORS, text=TEXTS, version=st.none() | st.integers(-1, 1))
    def updates(self, viewer, message, author, text, version):
        """version: beside the one that is stored."""
        viewer, number = self.viewer(viewer), self.known_id(message)
        data = {"id": number, "author": author, "text": text}
        row = self.model.row(number)
        if version is not None:
            data["version"] = max((row.version if row else 1) + version, 1)
        if not (fits(author, AUTHOR_MAX) and fits(text, TEXT_MAX)):
            self.refused(viewer, self.send(viewer, "update message", data), "invalid")
            return
        outcome = self.model.update(number, stored(author), stored(text), data.get("version"))
        self.change(viewer, "update message", data, outcome)
        self.settle()

    @precondition(lambda self: self.viewers)
    @step(viewer=INDEX, message=INDEX, keyed=st.booleans())
    def deletes(self, viewer, message, keyed):
        viewer, data = self.viewer(viewer), {"id": self.known_id(message)}
        if keyed:
            data["key"] = self.new_key()
            self.deletions.append((data["id"], data["key"]))
        outcome = self.model.delete(data["id"], data.get("key"))
        self.change(viewer, "delete message", data, outcome)
        self.settle()

    @precondition(lambda self: self.viewers and self.deletions)
    @step(viewer=INDEX, deletion=INDEX, again=st.booleans())
    def undoes(self, viewer, deletion, again):
        """Or sends the delete again."""
        number, key = self.deletions[deletion % len(self.deletions)]
        viewer = self.viewer(viewer)
        outcome = self.model.delete(number, key) if again else self.model.restore(number, key)
        self.change(viewer, "delete message" if again else "restore message",
                    {"id": number, "key": key}, outcome)
        self.settle()

    @precondition(lambda self: self.viewers)
    @step(viewer=INDEX, bad=BAD)
    def sends_what_is_wrong(self, viewer, bad):
        viewer, (text, code) = self.viewer(viewer), bad
        viewer.client.send_raw(text)
        frame = viewer.client.frame()
        assert frame["selector"] == "#notices" and "ref" not in frame, frame
        assert CODE.search(frame["html"]).group(1) == code
        assert frame.get("error", {}).get("code") == (code if viewer.replies else None)

    # ------------------------------------------------------------------------
    # Many at once

    @precondition(lambda self: self.viewer(0, replies=True))
    @step(viewer=INDEX, kinds=st.lists(KINDS, min_size=2, max_size=12), picks=st.lists(INDEX, min_size=12,
                                                                                       max_size=12))
    def sends_many(self, viewer, kinds, picks):
        """Without waiting for answers."""
        viewer = self.viewer(viewer, replies=True)
        sent = []
        since = self.floor[viewer.board]
        rows = list(self.model.rows)
        for kind, pick in zip(kinds, picks):
            text = f"many {self.refs}"
            if kind == "update" and not rows:
                kind = "add"
            if kind == "add":
                data = {"author": "Many", "text": text}
                ref = self.send(viewer, "add message", data)
            elif kind == "update":
                data = {"author": "Many", "text": text, "id": rows[pick % len(rows)].id}
                ref = self.send(viewer, "update message", data)
            elif kind == "list":
                data = {"page": pick}
                ref = self.send(viewer, "list messages", data)
            else:
                data = {"author": "Many"}
                ref = self.send(viewer, "add message", data)
            sent.append((kind, data, ref))
        received = []  # Frames, each with what it answers and the state that this has made
        for kind, data, ref in sent:  # In order, each once
            frame, before = self.reply(viewer, ref)
            assert all("ref" not in other for other in before), before
            assert frame["status"] == ("error" if kind == "bad" else "ok"), frame
            if kind == "add":
                self.model.add(frame["id"], data["author"], data["text"])
            elif kind == "update":
                assert self.model.update(data["id"], data["author"], data["text"]) == "ok"
            received += [(other, None, None, None) for other in before]
            received.append((frame, kind, data, self.now))
        for frame, kind, data, state in received:
            if kind == "list":
                self.place(viewer, frame, {data["page"]}, since)
            elif kind is None:
                self.unasked(viewer, frame, own=True)
            elif kind != "bad":  # Who has the ok has seen it done
                assert any(self.model.page(viewer.page, later) == viewer.shown
                           for later in range(state, self.now + 1)), (frame, viewer.shown, received)
        self.floor[viewer.board] = self.now
        self.settle()

    @precondition(lambda self: self.viewer(0, replies=True))
    @step(board=INDEX)
    def all_add(self, board):
        """At the same time; the board puts them in an order."""
        board = self.board(board)
        writers = [viewer for viewer in self.viewers if viewer.replies and viewer.board == board]
        refs = [self.send(viewer, "add message", {"author": "All", "text": f"all {index}"})
                for index, viewer in enumerate(writers)]
        answers = [self.reply(viewer, ref) for viewer, ref in zip(writers, refs)]
        numbers = {frame["id"]: index for index, (frame, _) in enumerate(answers)}
        assert len(numbers) == len(writers)
        for number in sorted(numbers):
            self.model.add(number, "All", f"all {numbers[number]}")
        for viewer, (_, before) in zip(writers, answers):
            for frame in before:
                self.unasked(viewer, frame, own=True)
        self.settle()

    @precondition(lambda self: len(self.viewers) > 1 and self.model.rows)
    @step(viewer=INDEX, writer=INDEX, page=PAGES, has_it=st.booleans(), message=INDEX, text=GOOD_TEXTS)
    def looks_while_one_writes(self, viewer, writer, page, has_it, message, text):
        """Which of the two comes first nobody knows."""
        viewer = self.viewer(viewer)
        writer = self.viewer(self.viewers.index(viewer) + 1 + writer % (len(self.viewers) - 1))
        expected, before, row = self.model.page(int(page)), self.now, self.row(message)
        etag = self.etags.get(expected) if has_it else None
        ref = self.send(viewer, "list messages", {"page": page, "etag": etag} if etag else {"page": page})
        written = self.send(writer, "update message", {"id": row.id, "author": row.author, "text": text})
        self.model.update(row.id, row.author, stored(text))
        self.done(writer, written, row.id, writer.page)
        frames = self.until_answered(viewer, ref)
        assert etag or frames, "no answer"
        for frame in frames:
            if "html" in frame:
                self.place(viewer, frame, {viewer.page, int(page)}, before if frame.get("ref") else 0)
            else:
                assert frame == {"ref": ref, "status": "ok", "page": expected[0], "pages": expected[1], "etag": etag}
        if viewer.page != expected[0]:  # It has been told, if at all, that the page is what it has
            assert etag
            viewer.page, viewer.shown = expected[0], expected
            viewer.seen[viewer.page] = before
        self.settle()

    # ------------------------------------------------------------------------
    # Others: forms without script, and somebody in psql

    def post(self, board, path, **fields):
        """Sends a form; returns the status."""
        return self.boards[board].post(path, urllib.parse.urlencode(fields)).status

    @step(board=INDEX, author=AUTHORS, text=TEXTS)
    def form_adds(self, board, author, text):
        board = self.board(board)
        status = self.post(board, "/messages", author=author, message=text)
        good = fits(author, AUTHOR_MAX) and fits(text, TEXT_MAX)
        assert status == (303 if good else 422)
        if good:
            self.bring_in(stored(author), stored(text))
            self.floor[board] = self.now
        self.settle()

    @step(board=INDEX, message=INDEX, author=GOOD_AUTHORS, text=GOOD_TEXTS, version=st.none() | st.integers(-1, 0))
    def form_updates(self, board, message, author, text, version):
        board, number = self.board(board), self.known_id(message)
        row = self.model.row(number)
        fields = {}
        if version is not None:
            fields["version"] = max((row.version if row else 1) + version, 1)
        outcome = self.model.update(number, stored(author), stored(text), fields.get("version"))
        status = self.post(board, f"/messages/{number}", author=author, message=text, **fields)
        assert status == STATUS[outcome], (status, outcome)
        self.floor[board] = self.now if outcome == "ok" else self.floor[board]
        self.settle()

    @step(board=INDEX, message=INDEX)
    def form_deletes(self, board, message):
        board, number = self.board(board), self.known_id(message)
        outcome = self.model.delete(number)
        status = self.post(board, f"/messages/{number}/delete")
        assert status == STATUS[outcome], (status, outcome)
        self.floor[board] = self.now if outcome == "ok" else self.floor[board]
        self.settle()

    @step(count=st.integers(1, 7), era=st.integers(0, 2))
    def somebody_inserts(self, count, era):
        """Also in the past and in the future."""
        self.model.maker = None
        rows = self.sql(
            "INSERT INTO messages (id, author, text, created_at)"
            " SELECT id, 'Else', 'text ' || id, CASE %s WHEN 0 THEN '2001-01-01'::timestamptz + id * interval '1 s'"
            " WHEN 1 THEN now() ELSE '2101-01-01'::timestamptz + id * interval '1 s' END"
            " FROM (SELECT nextval('messages_id_seq') AS id FROM generate_series(1, %s)) AS new"
            " RETURNING id", era, count)
        for (number,) in rows:
            self.model.rows.append(Row(number, era, "Else", f"text {number}"))
        self.model.changed()
        self.settle()

    @precondition(lambda self: self.model.rows)
    @step(message=INDEX, text=GOOD_TEXTS)
    def somebody_updates(self, message, text):
        self.model.maker = None
        row, text = self.row(message), stored(text)
        self.sql("UPDATE messages SET text = %s WHERE id = %s", text, row.id)
        if row.text != text:
            row.text, row.version = text, row.version + 1
        self.model.changed()
        self.settle()

    @precondition(lambda self: self.model.rows)
    @step(message=INDEX, count=st.integers(1, 5))
    def somebody_deletes(self, message, count):
        self.model.maker = None
        start = message % len(self.model.rows)
        numbers = [row.id for row in self.model.rows[start:start + count]]
        self.sql("DELETE FROM messages WHERE id = ANY(%s)", numbers)
        self.model.rows = [row for row in self.model.rows if row.id not in numbers]
        self.model.changed()
        self.settle()

    @precondition(lambda self: len(self.model.rows) > 4)
    @step()
    def somebody_truncates(self):
        self.model.maker = None
        self.sql("TRUNCATE messages")
        self.model.rows = []
        self.model.changed()
        self.settle()

    # ------------------------------------------------------------------------

    @noted
    def teardown(self):
        """Nobody has anything more to come, and what is stored is what the model has."""
        try:
            for viewer in self.viewers:
                self.owed_nothing(viewer)
                assert viewer.shown == self.model.page(viewer.page)
            rows = self.sql("SELECT id, author, text, version FROM messages ORDER BY created_at DESC, id DESC")
            assert rows == [(row.id, row.author, row.text, row.version) for row in self.model.rows]
        finally:
            for viewer in self.viewers:
                viewer.client.close()
            for board in self.boards:
                board.clients.clear()


def test_histories(server, request):
    database = Fresh(server)
    options = {"board_page_size": PAGE_SIZE, "board_author_max": AUTHOR_MAX, "board_text_max": TEXT_MAX,
               "limits_messages_per_second": 0}
    Histories.boards = [Board(database_url=database.url, **options) for _ in range(2)]
    request.addfinalizer(lambda: stop_all(Histories.boards))
    with contextlib.closing(database.connect()) as Histories.database:
        try:
            run_state_machine_as_test(Histories, settings=settings(
                max_examples=HISTORIES or 35, stateful_step_count=40, deadline=None, database=None,
                derandomize=not HISTORIES, suppress_health_check=list(HealthCheck), print_blob=False))
        finally:
            if Histories.failure:
                pytest.fail(f"The first history that failed:\n{Histories.failure}", pytrace=False)
