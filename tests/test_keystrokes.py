"""A short form of keystrokes.py, which make keystrokes runs for long."""

import pytest

from keystrokes import run, run_number
from page import AWAY, console


@pytest.mark.parametrize("run", [run, run_number], ids=["edit form", "page's number"])
@console(AWAY)
def test_not_one_character_is_lost(start, browser, run):
    def start_at(address):
        return start(http_listen=address or "127.0.0.1:0", board_text_max=5000,
                     limits_messages_per_second=0)

    keys, commands = run(browser, start_at, 10, 1)
    assert keys > 20 and commands > 20
