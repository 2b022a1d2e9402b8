"""scripts/seed: a board full of messages."""

import os
import pty
import re
import shutil
import subprocess
import tempfile

from board import PATIENCE, ROOT, Board

SEED = os.path.join(ROOT, "scripts", "seed")


def seed(*arguments, **options):
    return subprocess.run([SEED, *arguments], capture_output=True, text=True, timeout=PATIENCE,
                          check=False, **options)


def fill(count, *where):
    ended = seed("--count", str(count), *where)
    assert ended.returncode == 0 and ended.stderr == "", ended
    assert ended.stdout.startswith(f"{count:,} messages in "), ended


def test_a_thousand_messages_are_on_the_board_at_once(start, database):
    board = start()
    client = board.client()
    assert "<article" not in client.first
    fill(1000, "--url", database.url)
    assert client.until("<article").count("<article") == 5
    client.send("list messages", page=999)
    last = client.until('data-page="200"')
    assert last.count("<article") == 5 and "messages__next-page" not in last
    assert board.get("/?page=100").text.count("<article") == 5


def test_messages_are_such_as_people_write(start, database):
    start()
    fill(1000, "--url", database.url)
    rows = database.sql("SELECT author, text FROM messages")
    assert len({author for author, _ in rows}) > 300 and len({text for _, text in rows}) > 700
    for author, text in rows:
        assert author == author.strip() and text == text.strip() and 0 < len(text) <= 200
        assert "{" not in text and "\\" not in text
    texts = "".join(text for _, text in rows)
    for letters in "ü", "é", "ж", "λ", "א", "م", "म", "の", "们", "이", "ả":
        assert letters in texts
    newest, oldest, ordered = database.sql(
        "SELECT now() - max(created_at) < '1 day', now() - min(created_at) > '364 days',"
        " bool_and(risen) FROM (SELECT created_at,"
        " created_at >= coalesce(lag(created_at) OVER (ORDER BY id), '-infinity') AS risen"
        " FROM messages) AS m")[0]
    assert newest and oldest and ordered


def test_a_private_postgres_is_found_by_its_folder():
    folder = tempfile.mkdtemp(prefix="breadboard-seed-")
    os.chmod(folder, 0o711)
    board = Board(database_state_dir=f"{folder}/var")
    fill(6, "--state-dir", f"{folder}/var")
    client = board.client()
    client.send("list messages", page=2)
    assert client.until('data-page="2"').count("<article") == 1
    assert board.stop() == 0
    shutil.rmtree(folder)


def test_a_terminal_shows_a_bar(start, database):
    start()
    here, there = pty.openpty()
    ended = subprocess.run([SEED, "--count", "20001", "--url", database.url], stderr=there,
                           stdout=subprocess.DEVNULL, timeout=PATIENCE, check=False)
    os.close(there)
    shown = os.read(here, 65536).decode()
    os.close(here)
    assert ended.returncode == 0
    assert re.findall(r"(\d+) %", shown) == ["0", "99", "100"], shown
    assert "20,001 of 20,001" in shown and "[##############################]" in shown


def test_what_cannot_be_filled_is_told_in_a_sentence(server):
    ended = seed("--count", "1", "--state-dir", "/nowhere")
    assert ended.returncode == 1 and "no board runs in /nowhere" in ended.stderr
    ended = seed("--count", "1", "--url", server.url.replace("dbname=board", "dbname=postgres"))
    assert ended.returncode == 1 and "start the board on it first" in ended.stderr
    for wrong in ["--count", "0"], ["--count", "many"], []:
        assert seed(*wrong).returncode == 2
