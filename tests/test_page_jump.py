"""Jumping: to the first page, to the last one, and to one whose number is typed."""

import pytest
from selenium.webdriver import ActionChains, Keys

from page import AWAY, REFUSED, console, fill, hush, numbered, place, wait_place

NUMBER = "#messages__page-number"
EDGES = {"first": "#messages__first-page", "previous": "#messages__previous-page",
         "next": "#messages__next-page", "last": "#messages__last-page"}
FIELD = """const it = document.activeElement;
return [it.id, it.value, it.selectionStart, it.selectionEnd];"""
LEFT = """return Object.fromEntries([...document.querySelectorAll("#paginator button, #paginator input")]
  .filter((it) => it.getClientRects().length)
  .map((it) => [it.id, it.getBoundingClientRect().left]));"""
#  As page 500,000 of a million has it, which nobody fills a board for
MILLION = """const field = document.querySelector("#messages__page-number");
field.defaultValue = 500000;
document.querySelector(".paginator__pages").textContent = "1000000";"""


@pytest.fixture
def board(board):
    return hush(board)


def shows(window):
    return {name for name, css in EDGES.items() if window.has(css)}


def type_page(window, text):
    window.click(NUMBER)
    window.press("a", ctrl=True)
    window.press(text)


def field(window):
    """The field's id, what it says, and what is selected in it, if it has the focus."""
    return window.js(FIELD)


def delete_oldest(database, count):
    database.sql("DELETE FROM messages WHERE id IN (SELECT id FROM messages ORDER BY id LIMIT %s)", count)


#  Without script


def test_jumping_without_script(board, browser):
    fill(board, *numbered(21))
    window = browser.window(board, script=False)
    window.follow(EDGES["last"])
    assert (window.path, window.shown()) == ("/?page=5", ["message 1"])
    window.follow(EDGES["first"])
    assert (window.path, window.shown()[0]) == ("/?page=1", "message 21")
    for typed, path, shown in (("3", "/?page=3", 3), (" 4 ", "/?page=+4+", 4), ("77", "/?page=77", 5),
                               ("", "/?page=", 1), ("two", "/?page=two", 1)):
        window.write(NUMBER, typed)
        page = window.one("html")
        window.press(Keys.ENTER)
        window.wait(lambda: window.path == path and window.one("html") != page, path)
        wait_place(window, f"Page {shown} of 5")


@console(AWAY, f"{REFUSED} 503")
def test_a_page_that_cannot_be_live_jumps_like_one_without_script(start, browser):
    board = start(http_max_connections=1)
    fill(board, *numbered(12))
    live, other = browser.window(board), browser.window(board, live=False)
    other.wait_text("#connection", "Not live")
    other.write(NUMBER, "2")
    other.press(Keys.ENTER)
    other.wait(lambda: other.path == "/?page=2", "the page")
    wait_place(other, "Page 2 of 3")
    assert place(live) == "Page 1 of 3"


#  Live


def test_what_leads_nowhere_else_is_not_there(board, browser):
    fill(board, *numbered(6))
    ann = browser.window(board)
    assert shows(ann) == {"next"} and not ann.has(NUMBER)
    ann.click(EDGES["next"])
    wait_place(ann, "Page 2 of 2")
    assert shows(ann) == {"previous"} and not ann.has(NUMBER)
    fill(board, *numbered(20))
    wait_place(ann, "Page 2 of 6")
    for page, edges in ((1, "next last"), (2, "previous next last"), (3, "first previous next last"),
                        (4, "first previous next last"), (5, "first previous next"),
                        (6, "first previous")):
        ann.open(f"/?page={page}")
        assert shows(ann) == set(edges.split()), page
        assert place(ann) == f"Page {page} of 6"


def test_the_ends_are_steps_in_the_history(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board)
    ann.js("document.notReloaded = true")
    ann.click(EDGES["last"])
    ann.wait_shown("message 1")
    assert (ann.path, place(ann)) == ("/?page=5", "Page 5 of 5")
    ann.click(EDGES["first"])
    ann.wait(lambda: ann.shown()[0] == "message 21", "the first page")
    assert ann.path == "/"
    ann.back()
    ann.wait_shown("message 1")
    assert ann.path == "/?page=5"
    assert ann.js("return document.notReloaded")


def test_a_number_leads_to_its_page(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board)
    ann.js("document.notReloaded = true")
    type_page(ann, "3")
    ann.press(Keys.ENTER)
    ann.wait_shown(*numbered(11)[:5:-1])
    assert (ann.path, place(ann)) == ("/?page=3", "Page 3 of 5")
    ann.wait_text("#announcer", "Page 3 of 5")
    assert field(ann) == ["messages__page-number", "3", 0, 1]  # Ready for the next
    ann.press("5", Keys.ENTER)
    ann.wait_shown("message 1")
    ann.back()
    wait_place(ann, "Page 3 of 5")
    assert ann.path == "/?page=3"
    assert ann.js("return document.notReloaded")


@pytest.mark.parametrize("typed, page", [("0", 1), ("-4", 1), ("99", 5), ("9" * 400, 5), (" 2 ", 2),
                                         ("004", 4), ("3", 3), ("", 3), ("  ", 3), ("two", 3), ("4x", 3)])
def test_any_number_leads_somewhere_and_nonsense_nowhere(board, browser, typed, page):
    fill(board, *numbered(21))
    ann = browser.window(board, "/?page=3")
    ann.write(NUMBER, typed)
    ann.press(Keys.ENTER)
    wait_place(ann, f"Page {page} of 5")
    if typed != "3":
        ann.wait_text("#announcer", f"Page {page} of 5")
    assert ann.focused() == "messages__page-number"
    ann.js("document.querySelector('.messages__update').click()")
    ann.wait_has(".update-form")  # What was sent before is answered before
    assert place(ann) == f"Page {page} of 5" and not ann.has(".notice")


def test_escape_restores_the_number(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board, "/?page=2")
    type_page(ann, "44")
    ann.press(Keys.ESCAPE)
    assert ann.value(NUMBER) == "2" and ann.focused() == "messages__page-number"
    ann.press(Keys.ENTER)
    assert ann.path == "/?page=2"


def test_a_click_selects_the_number_to_be_typed_over(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board, "/?page=2")
    ann.click(NUMBER)
    ann.press("5")
    assert ann.value(NUMBER) == "5"
    ann.click(NUMBER)  # Now it is what the reader typed, and a click goes into it
    ann.press(Keys.END, "0")
    assert ann.value(NUMBER) == "50"


def test_what_is_typed_survives_what_others_do(board, database, browser):
    fill(board, *numbered(21))
    ann = browser.window(board, "/?page=5")
    ann.write(NUMBER, "12345")  # Without a pointer, under which nothing moves anyway
    ann.js("document.activeElement.setSelectionRange(1, 3); document.activeElement.kept = true")
    before = ann.js("return arguments[0].getBoundingClientRect().top", ann.one(NUMBER))
    fill(board, *numbered(5))  # Page 5 is not the last any more
    ann.wait_text(".paginator__pages", "6")
    assert field(ann) == ["messages__page-number", "12345", 1, 3]
    assert ann.has(EDGES["next"])
    delete_oldest(database, 2)
    ann.wait_text(".paginator__pages", "5")
    assert field(ann) == ["messages__page-number", "12345", 1, 3]
    fill(board, *["long\n" * 30 + "text"] * 3)
    ann.wait_text(".paginator__pages", "6")
    assert ann.js("return document.activeElement.kept")
    assert abs(ann.js("return arguments[0].getBoundingClientRect().top", ann.one(NUMBER)) - before) < 1
    ann.press("9", Keys.ENTER)  # In place of what was selected: 1945
    wait_place(ann, "Page 6 of 6")


def test_what_is_typed_survives_that_pages_vanish(board, database, browser):
    fill(board, *numbered(16))
    ann = browser.window(board, "/?page=4")
    type_page(ann, "12")
    ann.js("document.activeElement.setSelectionRange(0, 1)")
    delete_oldest(database, 1)
    ann.wait(lambda: ann.path == "/?page=3", "the new last page")
    assert field(ann) == ["messages__page-number", "12", 0, 1]
    ann.press(Keys.ESCAPE)
    assert ann.value(NUMBER) == "3"
    ann.press("1")
    delete_oldest(database, 5)
    ann.wait_text(".paginator__pages", "2")  # Nobody would get a field now, but somebody is in this one
    assert field(ann)[:2] == ["messages__page-number", "1"]
    ann.js("document.activeElement.blur()")
    delete_oldest(database, 1)
    ann.wait_gone(NUMBER)
    assert place(ann) == "Page 2 of 2"


def test_a_number_that_is_left_goes_with_the_next_turn(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board)
    type_page(ann, "4")
    ann.click(EDGES["next"])
    wait_place(ann, "Page 2 of 5")


def test_the_focus_goes_on_from_the_ends(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board, "/?page=3")
    ann.one(EDGES["last"]).send_keys(Keys.ENTER)
    wait_place(ann, "Page 5 of 5")
    assert ann.focused() == "messages__previous-page"
    ann.one(EDGES["first"]).send_keys(Keys.ENTER)
    wait_place(ann, "Page 1 of 5")
    assert ann.focused() == "messages__next-page"


@console(AWAY)
def test_a_number_waits_for_the_server(start, browser):
    board = start()
    fill(board, *numbered(21))
    ann = browser.window(board)
    board.kill()
    ann.wait_text("#connection", "Connection lost")
    type_page(ann, "3")
    ann.press(Keys.ENTER)
    ann.wait_text(".notice__message", "Page 3 is shown when it is back")
    start(http_listen=board.address)
    ann.wait_shown(*numbered(11)[:5:-1])
    assert (ann.path, place(ann)) == ("/?page=3", "Page 3 of 5")
    ann.back()
    wait_place(ann, "Page 1 of 5")


@console(AWAY)
def test_a_number_whose_page_cannot_be_had_is_put_right(start, database, browser):
    board = start()
    fill(board, *numbered(21))
    ann = browser.window(board)
    database.stop("immediate")
    try:
        type_page(ann, "3")
        ann.press(Keys.ENTER)
        ann.wait_has(".notice")
        assert (ann.path, place(ann)) == ("/", "Page 1 of 5")
    finally:
        database.start()


def test_a_press_is_not_lost_while_pages_are_added(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board)
    ann.js("scrollTo(0, document.scrollingElement.scrollHeight)")
    ActionChains(ann.here(), duration=0).click_and_hold(ann.one(EDGES["next"])).perform()
    fill(board, *numbered(5))
    ann.wait_text(".paginator__pages", "6")
    ActionChains(ann.here(), duration=0).release().perform()
    wait_place(ann, "Page 2 of 6")


def test_the_keyboard_goes_along_the_paginator(board, browser):
    fill(board, *numbered(30))
    ann = browser.window(board, "/?page=3")
    ann.js("arguments[0].focus()", ann.one(EDGES["first"]))
    for name in "previous-page", "page-number", "next-page", "last-page":
        ann.press(Keys.TAB)
        assert ann.focused() == f"messages__{name}"


#  How it looks


@pytest.mark.parametrize("width", [1200, 390, 320])
def test_nothing_moves_from_page_to_page(board, browser, width):
    fill(board, *numbered(30))
    ann = browser.window(board)
    ann.resize(width, 800)
    seen = {}
    for page in range(1, 7):
        ann.open(f"/?page={page}")
        for name, left in ann.js(LEFT).items():
            assert abs(seen.setdefault(name, left) - left) < 0.5, (page, name)
    assert len(seen) == 5


@pytest.mark.parametrize("width, text, touch", [(1200, 1, False), (640, 1, False), (390, 2, False),
                                                (320, 1, False), (320, 1, True), (320, 2, True)])
def test_a_million_pages_have_room(board, browser, width, text, touch):
    fill(board, *numbered(26))
    ann = browser.window(board, "/?page=3")
    ann.resize(width, 800, mobile=touch)
    ann.js("document.documentElement.style.fontSize = `${arguments[0] * 16}px`", text)
    ann.js(MILLION)
    boxes = ann.js("""
        const field = document.querySelector("#messages__page-number");
        return [document.scrollingElement.scrollWidth - innerWidth, field.scrollWidth - field.clientWidth,
          ...[...document.querySelectorAll("#paginator *")].filter((it) => it.getClientRects().length)
            .map((it) => it.getBoundingClientRect()).map(({ left, right }) => Math.max(-left, right - innerWidth))];""")
    assert max(boxes) <= 0
    overlaps = ann.js("""
        const all = [...document.querySelectorAll("#paginator :is(button, input, span)")]
          .filter((it) => it.getClientRects().length).map((it) => [it, it.getBoundingClientRect()]);
        return all.flatMap(([it, one], at) => all.slice(at + 1).filter(([other, two]) =>
          one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom)
          .map(([other]) => [it.outerHTML, other.outerHTML]));""")
    assert overlaps == []
    if touch:
        sizes = ann.js("""return [...document.querySelectorAll("#paginator :is(button, input)")]
          .map((it) => it.getBoundingClientRect()).map(({ width, height }) => Math.min(width, height));""")
        assert len(sizes) == 6 and min(sizes) >= 44


def test_a_finger_has_a_button_and_its_keyboard_goes(board, browser):
    fill(board, *numbered(21))
    ann = browser.window(board)
    ann.resize(390, 844, mobile=True)
    assert ann.one(NUMBER).get_attribute("inputmode") == "numeric"
    ann.write(NUMBER, "3")
    ann.click(".paginator__go")
    wait_place(ann, "Page 3 of 5")
    assert ann.focused() == "messages__title"
