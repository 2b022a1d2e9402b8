"""What the tests of the page share."""

import re

REFUSED = "Failed to load resource: the server responded with a status of"
AWAY = "WebSocket connection to"  # What Chromium says when a server is away or refuses


def console(*parts):
    """Names what a test makes the browser complain of."""

    def name(test):
        test.console = parts
        return test

    return name


def fill(board, *texts, author="Ann"):
    """Stores messages, the last one newest."""
    client = board.client()
    for text in texts:
        client.send("add message", author=author, text=text)
        client.html()
    client.close()


def numbered(count):
    return [f"message {number}" for number in range(1, count + 1)]


def hush(board):
    """Waits until an empty board has said so: no window opens on what was there before."""
    client = board.client()
    client.send("add message", author="Ann", text="the last one before")
    (number,) = re.findall(r'id="message--(\d+)"', client.until("the last one before"))
    client.send("delete message", id=number)
    client.until("Nothing here yet")
    client.close()
    return board


def place(window):
    """Where the reader is, as the paginator says it: "Page 2 of 3"."""
    return window.js("""
        const place = document.querySelector(".paginator__place");
        const number = place?.querySelector("input");
        return number ? number.labels[0].textContent.replace(/ +/, ` ${number.value} `)
          : place?.textContent;""")


def wait_place(window, text):
    window.wait(lambda: place(window) == text, f"{text!r} in the paginator")
