#!/usr/bin/python3
"""locks [--seconds S] - somebody keeps a message locked all the while; make locks runs it.

Whoever wants to change that message is told to come back, each time, and comes back when told to. Nobody else is
refused, cut off or made to wait: keepers write, Bob's every add is acknowledged before the second refusal that comes
after it, pages and edit forms are shown. Ends with an error when that is not so.
"""

import argparse
import contextlib
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from asker import Asker
from board import Board, Database, Fresh
from keepers import ROWS, Keepers


class Locked:
    """Ann, who wants to change the locked message, again and again until it is done."""

    def __init__(self, board, number):
        self.refusals = 0
        self.done = threading.Event()
        self.fault = None
        self._asker = Asker(board)
        self._number = number
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self.done.is_set():
                code, reply = self._asker.ask("update message", id=self._number, author="Ann", text="at last")
                if code == "ok":
                    self.done.set()
                    return
                assert code == "busy", reply
                self.refusals += 1
                time.sleep(reply["retry_after_ms"] / 1000)
        except Exception as fault:  # raised in check ()
            self.fault = fault

    def check(self):
        if self.fault:
            raise self.fault


def run(board, fresh, seconds):
    """Returns how often the writer of the locked message was refused, and how many writes the others made."""
    bob = Asker(board)
    _, message = bob.ask("add message", author="Ann", text="locked")
    number = message["id"]
    with contextlib.closing(fresh.connect()) as other, Keepers(board.address) as keepers:
        other.autocommit = False
        other.cursor().execute("SELECT * FROM messages WHERE id = %s FOR UPDATE", (number,))
        until = time.monotonic() + seconds
        ann = Locked(board, number)
        adds = 0
        while time.monotonic() < until or ann.refusals < 3:
            before, began = ann.refusals, time.monotonic()
            code, reply = bob.ask("add message", author="Bob", text="not locked")
            adds += 1
            assert code == "ok", reply
            #  She waits for a second after each
            assert ann.refusals - before <= 1 + time.monotonic() - began, "a refusal and the next one overtook an add"
            code, form = bob.ask("open edit page", id=number)
            assert code == "ok" and "locked<" in form["html"]
            assert board.get("/").status == board.get("/readyz").status == 200
            keepers.wait(10)
            ann.check()
            assert not ann.done.is_set()
        written = adds + keepers.acknowledged
        other.rollback()
        assert ann.done.wait(30), "the message was never changed"
        refusals = ann.refusals
    assert keepers.refusals == 0 and keepers.close_codes == []
    found = keepers.check(fresh.sql(ROWS + " WHERE author LIKE 'keeper %'"))
    assert not any(found.values()), found
    assert fresh.sql("SELECT text FROM messages WHERE id = %s", number) == [("at last",)]
    assert fresh.sql("SELECT count(*) FROM messages WHERE author = 'Bob'") == [(adds,)]
    return refusals, written


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    seconds = parser.parse_args().seconds
    server = Database()
    fresh = Fresh(server)
    board = Board(database_url=fresh.url, limits_messages_per_second=0)
    refusals, written = run(board, fresh, seconds)
    print(f"{seconds:g} s: {refusals} refusals, {written} writes by others")
    status = board.stop()
    server.destroy()
    return status


if __name__ == "__main__":
    sys.exit(main())
