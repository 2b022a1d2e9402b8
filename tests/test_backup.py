"""The README's backup and restore, of a board that runs: with its own PostgreSQL, and with a private one."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile

import psycopg2
import pytest

from board import ROOT, Board, wait_for
from keepers import Keepers

KEY = "6a0e7d1e-6a53-4c4a-9a4e-52a6e5a3f0aa"
ALL = "SELECT id, author, text, created_at, key, version FROM messages WHERE author <> 'keeper 0' ORDER BY id"


def commands(private):
    """The two commands of the README for such a board: to dump, to restore."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        lines = [line.strip() for line in file if re.match(r"    pg_(dump|restore) ", line)]
    return [line for line in lines if ("/var/lib/breadboard" in line) == private]


@pytest.fixture
def folder():
    folder = tempfile.mkdtemp(prefix="breadboard-backup-")
    os.chmod(folder, 0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["private", "named"])
def place(request, folder):
    """Settings of a board, a way to its database, and the README's commands for it."""
    if request.param == "private":
        state = os.path.join(folder, "state")
        settings = {"database_state_dir": state}
        where = {"host": os.path.join(state, "socket"), "user": "breadboard", "dbname": "breadboard"}
        found = [line.replace("/var/lib/breadboard", state) for line in commands(True)]
    else:
        database = request.getfixturevalue("server")
        database.sql("DROP DATABASE IF EXISTS kept", database="postgres")
        database.sql("CREATE DATABASE kept", database="postgres")
        where = {"host": database.folder, "user": "board", "dbname": "kept"}
        settings = {"database_url": database.url.replace("dbname=board", "dbname=kept")}
        url = f"postgresql:///kept?host={database.folder}&user=board"
        found = [line.replace("postgresql://board@db.example/board", f"'{url}'") for line in commands(False)]
    return settings, where, found


def rows(where, statement=ALL):
    with contextlib.closing(psycopg2.connect(**where)) as connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall()


def test_a_board_is_backed_up_and_restored_while_it_runs(place, folder):
    settings, where, (dump, restore) = place
    board = Board(limits_messages_per_second=0, **settings)
    try:
        ann = board.client(subprotocols=["breadboard.1"])

        def add(text, **more):
            ann.send_raw(json.dumps({"action": "add message", "ref": text,
                                     "data": {"author": "Ann", "text": text, **more}}))
            frame = ann.frame()
            while frame.get("ref") != text:
                frame = ann.frame()
            assert frame["status"] == "ok", frame
            return frame["id"]

        ids = [add(f"kept {number}") for number in range(50)] + [add("with a key", key=KEY)]
        before = rows(where)
        assert len(before) == 51
        with Keepers(board.address, count=1) as keepers:  # others write all the time
            keepers.wait(50)
            subprocess.run(shlex.split(dump), check=True, cwd=folder)
            keepers.wait(50)
        assert not keepers.faults
        ann.send("delete message", id=ids[0])
        ann.send("update message", id=ids[1], author="Ann", text="ruined")
        add("too late")

        subprocess.run(shlex.split(restore), check=True, cwd=folder)
        board.signal(signal.SIGHUP)
        assert rows(where) == before
        ann.send("list messages", page=1)
        wait_for(lambda: "too late<" not in board.get("/").text, "the page to show what was restored")
        ((count,),) = rows(where, "SELECT count(*) FROM messages")
        pages = f'data-pages="{-(-count // 5)}"'
        wait_for(lambda: pages in board.get("/").text, "the number of pages")
        assert add("with a key", key=KEY) == ids[-1]  # stored once, then as now
        assert add("afterwards") > max(ids)
        for number, text in (ids[0], "kept 0"), (ids[1], "kept 1"):
            ann.send("open edit page", id=number)
            ann.until(text, f"#message--{number}")
    finally:
        board.clients.clear()
        assert board.stop() == 0
