"""The page in a browser: without script, live in several windows, by keyboard, on a small screen."""

import re
import time

import pytest
from selenium.webdriver import Keys

from page import AWAY, REFUSED, console, fill, hush, numbered, place, wait_place

LONG_WORD = "Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüssel" * 3
MOUNTAIN = "\U0001F3D4"  # One code point, two units of UTF-16


@pytest.fixture
def board(board):
    return hush(board)


#  Without script


def test_the_page_is_complete_without_script(board, browser):
    fill(board, *numbered(7))
    window = browser.window(board, script=False)
    assert window.shown() == numbered(7)[:1:-1]
    assert window.text("h1") == "Social Network"
    assert window.text(".paginator__place") == "Page 1 of 2"
    assert window.has("#message-form__author") and window.has("#message-form__text")
    assert window.text("#connection") == ""
    assert re.fullmatch(r"\d+ \w+ \d{4}, \d\d:\d\d UTC", window.texts("time")[0])


def test_adding_editing_deleting_without_script(board, browser):
    window = browser.window(board, script=False)
    window.fill("Ann", "written without script")
    window.follow("#message-form__submit")
    assert window.path == "/"
    assert window.shown() == ["written without script"]
    window.follow(".messages__update")
    assert re.fullmatch(r"/messages/\d+/edit\??", window.path)
    assert window.value("#message-form__text--update") == "written without script"
    window.write("#message-form__text--update", "first line\nsecond line")
    window.follow("#message-form__submit--update")
    assert window.path == "/"
    assert window.shown() == ["first line\nsecond line"]
    window.follow(".messages__update")
    window.follow(".update-form__cancel")
    assert window.path == "/"
    window.follow(".messages__delete")
    assert re.fullmatch(r"/messages/\d+/delete\??", window.path)
    window.follow(".delete-form__cancel")
    assert re.fullmatch(r"/\?page=1#message--\d+", window.path)
    window.follow(".messages__delete")
    window.follow("#delete-form__submit")
    assert window.shown() == []
    assert "Nothing here yet." in window.text(".blank")


def test_paging_without_script(board, browser):
    fill(board, *numbered(11))
    window = browser.window(board, script=False)
    assert not window.has("#messages__previous-page")
    window.follow("#messages__next-page")
    assert (window.path, len(window.shown())) == ("/?page=2", 5)
    window.follow("#messages__next-page")
    assert (window.path, window.shown()) == ("/?page=3", ["message 1"])
    assert not window.has("#messages__next-page")
    window.follow("#messages__previous-page")
    assert place(window) == "Page 2 of 3"


@console(f"{REFUSED} 422")
def test_what_is_wrong_is_shown_with_what_was_typed_without_script(board, browser):
    window = browser.window(board, script=False)
    window.fill("   ", "a <b>long</b> thought\nin two lines")
    window.follow("#message-form__submit")
    assert "author" in window.text(".form-error")
    assert window.value("#message-form__text") == "a <b>long</b> thought\nin two lines"
    assert window.shown() == []
    window.write("#message-form__author", "Ann")
    window.follow("#message-form__submit")
    assert window.shown() == ["a <b>long</b> thought\nin two lines"]


@console(f"{REFUSED} 422")
def test_a_wrong_edit_is_shown_with_what_was_typed_without_script(board, browser):
    fill(board, "as it was")
    window = browser.window(board, script=False)
    window.follow(".messages__update")
    window.write("#message-form__author--update", "Bob")
    window.write("#message-form__text--update", "   ")
    window.follow("#message-form__submit--update")
    assert window.has(".form-error")
    assert window.value("#message-form__author--update") == "Bob"
    window.write("#message-form__text--update", "as it is")
    window.follow("#message-form__submit--update")
    assert window.shown() == ["as it is"]
    assert window.text(".message__author") == "Bob"


#  Live


def test_a_message_that_is_typed_appears_in_every_window(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    bob.js("document.notReloaded = true")
    ann.click("#message-form__author")
    ann.press("Ann")
    ann.press(Keys.TAB, "Hello there")
    ann.click("#message-form__submit")
    for window in ann, bob:
        window.wait_shown("Hello there")
        assert window.text(".message__author") == "Ann"
    ann.wait(lambda: ann.value("#message-form__text") == "", "the field to be ready for the next")
    assert ann.value("#message-form__author") == "Ann"
    assert bob.js("return document.notReloaded")
    assert "New message by Ann" in bob.texts("#announcer")


def test_it_tells_how_many_are_here(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    for window in ann, bob:
        window.wait_text("#presence", "2 here now")
    bob.close()
    ann.wait_text("#presence", "1 here now")


def test_control_and_enter_post(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    ann.write("#message-form__author", "Ann")
    ann.click("#message-form__text")
    ann.press("one", Keys.ENTER, "two")
    ann.press(Keys.ENTER, ctrl=True)
    for window in ann, bob:
        window.wait_shown("one\ntwo")
    assert ann.focused() == "message-form__text"


def test_an_open_edit_form_keeps_text_caret_and_focus(board, browser):
    fill(board, "first", "second")
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("first")
    assert ann.focused() == "message-form__text--update"
    ann.press(" and more")
    ann.js("document.activeElement.setSelectionRange(2, 5)")
    bob.post("Bob", "third")
    ann.wait(lambda: ann.shown() == ["third", "second"], "the message that the other window added")
    assert ann.value("#message-form__text--update") == "first and more"
    assert ann.focused() == "message-form__text--update"
    assert ann.js("const { selectionStart, selectionEnd } = document.activeElement;"
                  " return [selectionStart, selectionEnd]") == [2, 5]
    bob.wait_shown("third", "second", "first")
    ann.click("#message-form__submit--update")
    for window in ann, bob:
        window.wait_shown("third", "second", "first and more")
    assert not ann.has(".update-form")


def test_what_is_typed_for_a_new_message_stays_when_others_write(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    ann.write("#message-form__text", "half a thou")
    bob.post("Bob", "quick")
    ann.wait_shown("quick")
    ann.press("ght")
    assert ann.value("#message-form__text") == "half a thought"


def test_escape_cancels_an_edit_and_returns_the_focus(board, browser):
    fill(board, "first", "second")
    window = browser.window(board)
    window.edit("first")
    window.press(" never saved")
    window.press(Keys.ESCAPE)
    window.wait_gone(".update-form")
    assert window.shown() == ["second", "first"]
    assert window.focused() == "messages__update"
    assert window.js("return document.activeElement.closest('.message')"
                     ".querySelector('.message__text').textContent") == "first"
    window.press(Keys.ENTER)  # And it works again
    window.wait_has(".update-form")
    window.click(".update-form__cancel")
    window.wait_gone(".update-form")
    assert window.focused() == "messages__update"


def test_an_edit_that_has_something_typed_is_not_lost_to_the_next(board, browser):
    fill(board, "first", "second")
    window = browser.window(board)
    window.edit("first")
    window.press("!")
    window.press_on("second", ".messages__update")
    window.wait_text(".update-form__note", "Save or cancel")
    assert window.value("#message-form__text--update") == "first!"
    assert window.focused() == "message-form__text--update"


def test_deleting_asks_in_place_first(board, browser):
    fill(board, "stays", "goes")
    ann, bob = browser.window(board), browser.window(board)
    ann.press_on("goes", ".messages__delete")
    assert ann.text(".message__question") == "Really delete?"
    assert ann.focused() == "messages__delete-no"
    assert not any(ann.here().find_element("css selector", f"article:first-child .{button}").is_displayed()
                   for button in ("messages__update", "messages__delete"))
    ann.press(Keys.ESCAPE)
    assert not ann.has(".message__question")
    assert ann.focused() == "messages__delete"
    ann.press(Keys.ENTER)
    ann.click(".messages__delete-no")
    assert not ann.has(".message__question")
    assert bob.shown() == ["goes", "stays"]
    ann.press(Keys.ENTER)
    ann.click(".messages__delete-yes")
    for window in ann, bob:
        window.wait_shown("stays")
    ann.wait_focused("messages__delete")  # The next message's
    ann.press(Keys.ENTER)
    ann.click(".messages__delete-yes")
    for window in ann, bob:
        window.wait_text(".blank", "Nothing here yet.")
        assert not window.has("#paginator")


def test_a_double_click_deletes_nothing(board, browser):
    fill(board, "stays")
    window = browser.window(board)
    button = window.one(".messages__delete").rect
    for count in 1, 2:
        for kind in "mousePressed", "mouseReleased":
            window.cdp("Input.dispatchMouseEvent", type=kind, button="left", clickCount=count,
                       x=button["x"] + button["width"] / 2, y=button["y"] + button["height"] / 2)
    window.press(Keys.ESCAPE)
    assert window.shown() == ["stays"]
    assert board.client().first.count("<article") == 1


def test_each_window_is_on_its_own_page(board, browser):
    fill(board, *numbered(11))
    ann, bob = browser.window(board), browser.window(board)
    newest, middle, oldest = numbered(11)[:5:-1], numbered(11)[5:0:-1], ["message 1"]
    ann.click("#messages__next-page")
    ann.wait_shown(*middle)
    assert ann.path == "/?page=2"
    assert place(ann) == "Page 2 of 3"
    ann.click("#messages__next-page")
    ann.wait_shown(*oldest)
    assert ann.path == "/?page=3"
    assert not ann.has("#messages__next-page")
    assert (bob.path, bob.shown()) == ("/", newest)
    bob.post("Bob", "one more")
    bob.wait_shown("one more", *newest[:4])
    ann.wait_shown("message 2", "message 1")
    assert ann.path == "/?page=3"
    ann.click("#messages__previous-page")
    ann.wait_shown(*middle[0:0], "message 7", *middle[:4])
    ann.click("#messages__previous-page")
    ann.wait_shown("one more", *newest[:4])
    assert ann.path == "/"


def test_an_address_with_a_page_stays_there(board, browser):
    fill(board, *numbered(11))
    window = browser.window(board, "/?page=2")
    fill(board, "message 12")
    window.wait_shown("message 7", "message 6", "message 5", "message 4", "message 3")
    assert window.path == "/?page=2"
    window.post("Ann", "message 13")  # Who writes wants to see it
    window.wait_shown("message 13", "message 12", "message 11", "message 10", "message 9")
    assert window.path == "/"


def test_the_focus_stays_on_the_paginator(board, browser):
    fill(board, *numbered(11))
    window = browser.window(board)
    window.one("#messages__next-page").send_keys(Keys.ENTER)
    wait_place(window, "Page 2 of 3")
    assert window.focused() == "messages__next-page"
    window.press(Keys.ENTER)
    wait_place(window, "Page 3 of 3")
    assert window.focused() == "messages__previous-page"


def test_an_edit_form_survives_that_its_message_is_deleted(board, browser):
    fill(board, "other", "doomed")
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("doomed")
    ann.press(" but dear to me")
    bob.press_on("doomed", ".messages__delete")
    bob.click(".messages__delete-yes")
    ann.wait_text(".update-form__note", "deleted")
    assert ann.value("#message-form__text--update") == "doomed but dear to me"
    assert ann.focused() == "message-form__text--update"
    ann.click("#message-form__submit--update")
    ann.wait(lambda: not ann.has(".update-form[aria-busy]"), "the refusal")
    assert "deleted" in ann.text(".update-form__note")
    assert ann.value("#message-form__text--update") == "doomed but dear to me"
    ann.click(".update-form__as-new")
    for window in ann, bob:
        window.wait_shown("doomed but dear to me", "other")
    assert not ann.has(".update-form")


def test_an_edit_form_says_that_somebody_else_has_changed_the_message(board, browser):
    fill(board, "as it was")
    ann, bob = browser.window(board), browser.window(board)
    for window, more in (ann, ", says Ann"), (bob, ", says Bob"):
        window.edit("as it was")
        window.press(more)
    bob.click("#message-form__submit--update")
    bob.wait_shown("as it was, says Bob")
    ann.wait_text(".update-form__note", "Somebody has changed this message")
    assert ann.value("#message-form__text--update") == "as it was, says Ann"
    ann.press(Keys.ESCAPE)
    ann.wait_shown("as it was, says Bob")


def test_a_notice_goes_by_escape(board, browser):
    fill(board, "a message")
    window = browser.window(board)
    window.js("document.querySelector('.messages__update').dataset.id = '999999'")
    window.click(".messages__update")
    window.wait_has('.notice[role="alert"]')
    window.press(Keys.ESCAPE)
    assert not window.has(".notice")
    assert window.focused() == "messages__update"


def test_the_title_counts_what_came_while_nobody_looked(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    hide = """Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));"""
    ann.js(hide, True)
    for number in 1, 2:
        bob.post("Bob", f"message {number}")
        ann.wait(lambda: ann.js("return document.title") == f"({number}) Social Network", "a count")
        bob.wait(lambda: not bob.value("#message-form__text"), "the message to be posted")
    ann.js(hide, False)
    assert ann.js("return document.title") == "Social Network"


def test_counters_count_code_points(board, browser):
    window = browser.window(board)
    note = "#message-form__text-note"
    assert window.text(note) == "0 / 200"
    window.write("#message-form__text", f" {MOUNTAIN}é\u0301 ")
    assert window.text(note) == "3 / 200"
    window.write("#message-form__text", MOUNTAIN * 201)
    assert window.text(note) == "201 / 200: 1 too many"
    assert window.one("#message-form__text").get_attribute("aria-invalid") == "true"
    window.write("#message-form__author", MOUNTAIN * 101)
    assert "1 too many" in window.text("#message-form__author-note")
    window.click("#message-form__submit")
    assert window.focused() == "message-form__author"
    window.post(MOUNTAIN * 100, MOUNTAIN * 200)
    window.wait_shown(MOUNTAIN * 200)
    assert window.text(".message__author") == MOUNTAIN * 100
    window.edit(MOUNTAIN * 200)
    assert window.text("#message-form__text-note--update") == "200 / 200"


def test_an_empty_field_is_explained_and_not_sent(board, browser):
    window = browser.window(board)
    window.post("Ann", " \n ")
    assert window.text("#message-form__text-note") == "Please write a message."
    assert window.focused() == "message-form__text"
    window.press("now")
    assert window.text("#message-form__text-note") == "3 / 200"
    window.write("#message-form__author", "")
    window.click("#message-form__submit")
    assert window.text("#message-form__author-note") == "Please say who you are."
    assert window.focused() == "message-form__author"
    assert window.shown() == []


#  The server goes and comes


@console(AWAY)
def test_a_window_survives_that_the_server_restarts(start, browser):
    board = start()
    window = browser.window(board)
    window.post("Ann", "before")
    window.wait_shown("before")
    window.edit("before")
    window.press(" half an edit")
    window.write("#message-form__text", "half a thou")
    began = time.monotonic()
    assert board.stop() == 0
    window.wait_text("#connection", "Connection lost")
    assert time.monotonic() - began < 3
    window.press("ght")
    again = start(http_listen=board.address)
    fill(again, "meanwhile", author="Bob")
    window.wait_text("#connection", "Live")
    window.wait_text(".message__text", "meanwhile")
    assert window.value("#message-form__text") == "half a thought"
    assert window.value("#message-form__text--update") == "before half an edit"
    assert window.focused() == "message-form__text"
    window.click("#message-form__submit")
    window.wait_text(".message__text", "half a thought")
    window.click("#message-form__submit--update")
    window.wait_shown("half a thought", "meanwhile", "before half an edit")


@console(AWAY, f"{REFUSED} 503")
def test_a_page_that_cannot_be_live_works_like_one_without_script(start, browser):
    board = start(http_max_connections=1)
    live, other = browser.window(board), browser.window(board, live=False)
    other.wait_text("#connection", "Not live")
    other.fill("Bob", "the long way")
    other.follow("#message-form__submit")
    live.wait_shown("the long way")
    assert other.shown() == ["the long way"]
    assert other.value("#message-form__text") == ""
    other.follow(".messages__update")
    other.write("#message-form__text--update", "the long way, changed")
    other.follow("#message-form__submit--update")
    live.wait_shown("the long way, changed")


#  Anything that people write


def test_markup_stays_text(board, browser):
    attacks = (
        "<script>document.hacked = 1</script>",
        "<img src=x onerror='document.hacked = 1'>",
        '"><svg onload="document.hacked = 1">',
        "</textarea><script>document.hacked = 1</script>",
        "{{author}} {{{text}}} ${document.hacked = 1}",
    )
    ann, bob = browser.window(board), browser.window(board)
    for attack in attacks:
        ann.post(attack, attack)
        bob.wait(lambda: attack in bob.shown(), attack)
        ann.wait(lambda: not ann.value("#message-form__text"), "the message to be posted")
    late, plain = browser.window(board), browser.window(board, script=False)
    for window in ann, bob, late, plain:
        assert window.shown() == list(reversed(attacks))
        assert window.texts(".message__author") == window.shown()
        assert not window.has("#messages img, #messages svg, #messages script")
    for attack in attacks:
        late.edit(attack)
        assert late.value("#message-form__text--update") == attack
        assert late.value("#message-form__author--update") == attack
        late.click("#message-form__submit--update")
        late.wait_gone(".update-form")
    for window in ann, bob, late:
        assert not window.js("return document.hacked")


def overhang(window):
    """By how many pixels the page is wider than its window."""
    return window.js("return document.scrollingElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@console(f"{REFUSED} 404")
def test_nothing_is_wider_than_a_small_screen(board, browser, dark):
    for author, text in (
        (LONG_WORD[:100], LONG_WORD),
        ("נועה ברק", "שלום לכולם! האם מישהו ראה את המפתחות? " * 5),
        ("👨‍👩‍👧‍👦" * 14, "👨‍👩‍👧‍👦🏔️🇨🇭" * 18),
        ("W" * 100, "https://example.org/" + "a/very-long?address=" * 8),
        ("山田 太郎", "吾輩は猫である。" * 20),
        ("one more", "for a second page"),
    ):
        fill(board, text, author=author)
    window = browser.window(board, dark=dark)
    window.resize(320, 640, mobile=True)
    assert window.js("return innerWidth") == 320
    assert overhang(window) <= 0
    window.click("#messages__next-page")
    window.wait_text("#paginator", "Page 2")
    assert overhang(window) <= 0
    window.click(".messages__delete")
    assert overhang(window) <= 0
    window.press(Keys.ESCAPE)
    window.click(".messages__update")
    window.wait_has(".update-form")
    assert overhang(window) <= 0
    window.js("document.querySelector('#messages__previous-page').value = 'none'")
    window.click("#messages__previous-page")
    window.wait_has(".notice")
    assert overhang(window) <= 0
    window.open("/no-such-page" + "-at-all" * 20)
    assert overhang(window) <= 0


def test_each_text_has_its_own_direction(board, browser):
    fill(board, "שלום לכולם", "hello")
    window = browser.window(board)
    assert window.js("return Array.from(document.querySelectorAll('.message__text'),"
                     " (text) => getComputedStyle(text).direction)") == ["ltr", "rtl"]
    window.write("#message-form__text", "שלום")
    assert window.one("#message-form__text").value_of_css_property("direction") == "rtl"


#  For everybody


def stops(window, **held):
    """What the Tab key reaches until it leaves the page; each must show that it has the focus."""
    reached = []
    for _ in range(50):
        window.press(Keys.TAB, **held)
        name, shows = window.js("""
            const it = document.activeElement;
            const { outlineStyle, outlineWidth } = getComputedStyle(it);
            return [it.id || it.classList[it.classList.length - 1] || it.tagName,
                    outlineStyle !== "none" && parseFloat(outlineWidth) >= 2];""")
        if name == "BODY":
            return reached
        assert shows, f"{name} has the focus, and nobody can see it"
        reached.append(name)
    raise AssertionError(f"no way out: {reached}")


def test_the_keyboard_reaches_everything_and_leaves_again(board, browser):
    fill(board, *numbered(6))
    window = browser.window(board)
    form = ["message-form__author", "message-form__text", "message-form__submit"]
    buttons = ["message__permalink", "messages__update", "messages__delete"]
    everything = form + buttons * 5 + ["messages__next-page"]
    assert stops(window) == everything
    assert stops(window, shift=True) == everything[::-1]
    window.edit("message 6")  # And is in its text
    update = [f"{part}--update" for part in form] + ["update-form__cancel"]
    below = buttons * 4 + ["messages__next-page"]
    assert stops(window) == update[2:] + below
    assert stops(window) == form + update + below
    assert stops(window, shift=True) == (form + update + below)[::-1]
    window.press_on("message 5", ".messages__delete")  # And is on Keep
    question = ["messages__delete-yes", "messages__delete-no"]
    below = buttons * 3 + ["messages__next-page"]
    assert stops(window) == below
    assert stops(window) == form + update + buttons[:1] + question + below


def test_a_message_can_be_written_changed_and_deleted_without_a_mouse(board, browser):
    window = browser.window(board)
    window.press(Keys.TAB, "Ann", Keys.TAB, "by keyboard", Keys.TAB, " ")
    window.wait_shown("by keyboard")
    window.press(Keys.TAB, Keys.TAB, Keys.ENTER)
    window.wait_focused("message-form__text--update")
    window.press(", changed", Keys.TAB, Keys.ENTER)
    window.wait_shown("by keyboard, changed")
    window.wait_focused("messages__update")
    window.press(Keys.TAB, " ")
    window.wait_focused("messages__delete-no")
    window.press(Keys.TAB, shift=True)
    window.press(" ")
    window.wait_text(".blank", "Nothing here yet.")
    window.wait_focused("messages__title")


def test_times_are_for_machines_and_for_people(board, browser):
    fill(board, "a message")
    window = browser.window(board)
    stamp = window.one("time").get_attribute("datetime")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", stamp)
    assert abs(window.js("return Date.now() - new Date(arguments[0])", stamp)) < 60_000
    assert re.search(r"\b20\d\d\b", window.one("time").get_attribute("title"))
    hour, day = 3600, 86400
    for later, text in (
        (-5 * hour, "just now"),  # A clock that lags behind the server's
        (0, "just now"),
        (61, "1 minute ago"),
        (59 * 60, "59 minutes ago"),
        (3 * hour + 61, "3 hours ago"),
        (2 * day + 61, "2 days ago"),
        (70 * day, "2 months ago"),
        (800 * day, "2 years ago"),
    ):
        window.js("""
            const real = document.realNow ??= Date.now.bind(Date);
            Date.now = () => real() + arguments[0] * 1000;
            document.dispatchEvent(new Event("visibilitychange"));""", later)
        assert window.text("time").startswith(text)


def assert_legible(window, *names):
    """Every text that is shown has enough contrast, and those that the names are part of are shown."""
    contrasts = window.contrasts()
    for name in names:
        assert any(name in shown for shown, _ in contrasts), f"no {name} in {contrasts}"
    assert [pair for pair in contrasts if pair[1] < 4.5] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@console(AWAY, REFUSED)
def test_every_text_is_legible(start, browser, dark):
    board = start()
    window = browser.window(board, dark=dark)
    window.resize(1200, 900)
    ground = window.one("body").value_of_css_property("background-color")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == dark
    assert_legible(window, "blank__title", "masthead__title", "#connection", "field__label", "kbd")
    fill(board, *numbered(12))
    window.wait_shown(*numbered(12)[:6:-1])
    assert_legible(window, "message__author", "message__text", "permalink", "messages__update",
                   "paginator__number", "paginator__pages", "messages__next-page", "messages__last-page",
                   "button--primary")
    window.press_on("message 12", ".messages__delete")
    assert_legible(window, "message__question", "messages__delete-yes", "messages__delete-no")
    window.edit("message 11")
    window.press("!")
    window.press_on("message 10", ".messages__update")
    window.write("#message-form__text", "x" * 201)
    window.js("document.querySelector('#messages__next-page').value = 'none'")
    window.click("#messages__next-page")
    window.wait_has(".notice")
    assert_legible(window, "update-form__note", "update-form__cancel", "notice__message",
                   "notice__dismiss", "message-form__text-note")
    assert board.stop() == 0
    window.wait_text("#connection", "Connection lost")
    assert_legible(window, "#connection")
    start(http_listen=board.address)
    window.open("/no-such-page")
    assert_legible(window, "error__status", "board__title", "error__message", "button--primary")
    window.cdp("Emulation.setScriptExecutionDisabled", value=True)
    window.open("/")
    window.fill("  ", "x")
    window.follow("#message-form__submit")
    assert_legible(window, "form-error")
