#!/usr/bin/python3
"""Screenshots of the board in each of its states: screenshots.py FOLDER

Starts a board on a private PostgreSQL in a temporary folder, fills it with what people might write,
and shows it on a desk and on a phone, in light and in dark. To see all scripts, Debian's packages
fonts-noto-core, fonts-noto-cjk and fonts-noto-color-emoji help.
"""

import base64
import itertools
import os
import shutil
import sys
import tempfile

from selenium.webdriver import Keys

from board import Board
from browser import Browser

SCREENS = {
    "desktop": {"width": 1200, "height": 900},
    "phone": {"width": 390, "height": 844, "mobile": True, "scale": 2},
}

MESSAGES = (
    ("Tomás Herrera", "¿Alguien sabe a qué hora abre la biblioteca los sábados?"),
    ("Priya", "It opens at ten. The reading room is quiet until noon, so come early 📚"),
    ("Jonas Lindqvist", "Tack för senast! Bilderna från i lördags ligger i den gemensamma mappen."),
    ("Ines", "Who has the key to the bike shed?\nI locked my helmet in there again 🙈"),
    ("Olga Petrenko", "Ключ у мене. Буду в офісі до п’ятої, заходьте."),
    ("Marie-Claire", "Le pain de ce matin était encore chaud. Il en reste trois, premier arrivé…"),
    ("עומר", "מחר יש חזרה בשעה שמונה. נא להביא את התווים!"),
    ("高橋 由美", "お花見は日曜日の十一時からです。お弁当を忘れないでください🌸"),
    ("Lena", "The oscilloscope is back from repair. Channel two works again, and nobody touches "
             "the probe calibration, please 🙂"),
    ("Samuel Okafor", "Soldering evening is on Thursday at seven.\n"
                      "Bring a project, or take one of the kits."),
)


def shoot(window, path):
    data = window.cdp("Page.captureScreenshot", format="png")["data"]
    with open(path, "wb") as file:
        file.write(base64.b64decode(data))


def reload(window):
    """Shows the board as somebody finds it who comes later, when nothing has just arrived."""
    window.open("/")
    window.wait_text("#connection", "Live")
    window.js("""
        let minutes = 4;
        for (const time of document.querySelectorAll("time")) {
          time.dateTime = new Date(new Date(time.dateTime) - minutes * 60000).toISOString();
          minutes = minutes * 2.5 + 3;
        }
        document.dispatchEvent(new Event("visibilitychange"));""")


def show_empty(window, board):
    window.wait_has(".blank")


def show_board(window, board):
    client = board.client()
    for author, text in MESSAGES:
        client.send("add message", author=author, text=text)
        client.until(f">{author}</h2>")
    client.close()
    window.wait_text(".message__author", MESSAGES[-1][0])
    reload(window)
    window.fill("Ines", "I’ll bring the clock radio that eats its own alarm. See you on Thursday!")
    window.js("scrollTo(0, 0)")


def show_edit_form(window, board):
    window.fill("", "")
    window.edit(MESSAGES[-2][1])
    window.press(" Thank you!")


def show_error(window, board):
    window.press(Keys.ESCAPE)
    window.fill("Ines", "Found it, thanks! " * 13)
    window.js("const button = document.querySelector('.messages__update');"
              " button.dataset.id = '999999'; button.click()")  # As if it had been deleted
    window.wait_has(".notice")
    window.js("scrollTo(0, 0)")


def show_question(window, board):
    reload(window)
    window.press_on(MESSAGES[-2][1], ".messages__delete")


def show_undo(window, board):
    window.press(Keys.ESCAPE)
    window.delete(MESSAGES[-3][1])
    window.wait_has(".undo")


def show_conflict(window, board):
    window.click(".undo__button")
    window.wait_text(".message__author", MESSAGES[-3][0])
    window.edit(MESSAGES[-2][1])
    window.press(" Thank you!")
    number = window.one(".update-form").get_attribute("data-id")
    client = board.client()
    client.send("update message", id=number, author=MESSAGES[-2][0],
                text="The oscilloscope is back from repair. Both channels work again 🙂")
    client.html()
    client.close()
    window.wait_has(".update-form__note")
    window.click("#message-form__submit--update")
    window.wait_has(".update-form__stored")


def show_many(window, board):
    """As a board of five million messages has it, which nobody fills for a picture."""
    client = board.client()
    for author, text in MESSAGES * 2:
        client.send("add message", author=author, text=text)
        client.html()
    client.close()
    window.click(".update-form__cancel")
    window.wait_gone(".update-form")
    window.open("/?page=3")
    window.wait_has("#messages__first-page")
    window.js("""
        const field = document.querySelector("#messages__page-number");
        field.defaultValue = 500000;
        document.querySelector(".paginator__pages").textContent = 1000000;
        document.querySelector("#paginator").scrollIntoView({ block: "end" });""")


def show_lost(window, board):
    reload(window)
    window.js("scrollTo(0, 0)")
    board.stop()
    window.wait_text("#connection", "Connection lost")
    window.post("Ines", "On my way, with the clock radio.")
    window.fill("Ines", "And with")
    window.wait_has(".pending")
    window.js("document.querySelector('.pending').scrollIntoView({ block: 'center' })")


def show_refused(window, board):
    window.js("""
        document.querySelector(".pending").classList.add("pending--refused");
        document.querySelector(".pending__state").textContent =
          "Not stored: text must have at most 25 characters.";
        document.querySelector(".pending__controls").hidden = false;""")


STATES = {
    "1-empty": show_empty,
    "2-board": show_board,
    "3-edit": show_edit_form,
    "4-error": show_error,
    "5-question": show_question,
    "6-undo": show_undo,
    "7-conflict": show_conflict,
    "8-many": show_many,
    "9-lost": show_lost,
    "10-refused": show_refused,
}


def main(folder):
    os.makedirs(folder, exist_ok=True)
    place = tempfile.mkdtemp(prefix="breadboard-screenshots-")
    os.chmod(place, 0o711)
    browser = Browser()
    try:
        for screen, dark in itertools.product(SCREENS, (False, True)):
            state_dir = os.path.join(place, f"{screen}-{dark}")
            board = Board(database_state_dir=state_dir)
            try:
                window = browser.window(board, dark=dark)
                window.resize(**SCREENS[screen])
                window.cdp("Emulation.setScrollbarsHidden", hidden=True)
                for state, show in STATES.items():
                    show(window, board)
                    name = f"{screen}-{'dark' if dark else 'light'}-{state}.png"
                    shoot(window, os.path.join(folder, name))
                browser.close_windows()
            finally:
                if board.process.returncode is None:
                    board.stop()
    finally:
        browser.quit()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
