"""A short form of keystrokes.py, which make keystrokes runs for long."""

from keystrokes import run
from page import AWAY, console


@console(AWAY)
def test_not_one_character_is_lost(start, browser):
    def start_at(address):
        return start(http_listen=address or "127.0.0.1:0", board_text_max=5000,
                     limits_messages_per_second=0)

    keys, commands = run(browser, start_at, 10, 1)
    assert keys > 20 and commands > 20
