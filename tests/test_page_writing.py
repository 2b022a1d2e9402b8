"""Writing in the page: seen at once, never doubled, never overwritten unseen, and what is deleted can be
had back."""

import itertools

import pytest
from selenium.webdriver import Keys

from page import AWAY, console, fill, hush
from proxy import Proxy

#  Notes how often a text is shown as pending and as stored, whenever anything changes
WATCH = """
const text = arguments[0];
const count = (css) => [...document.querySelectorAll(css)].filter((it) => it.textContent === text).length;
document.seen = [];
new MutationObserver(() => document.seen.push(`${count(".pending__text")} ${count(".message__text")}`))
  .observe(document.body, { childList: true, subtree: true });"""


@pytest.fixture
def board(board):
    return hush(board)


@pytest.fixture
def network(board):
    """A network before the board that breaks when a test wants it to."""
    proxy = Proxy(board.port)
    yield proxy
    proxy.close()


def pending(window):
    return window.texts(".pending__text")


@console(AWAY)
def test_a_message_is_seen_at_once_and_becomes_real_in_one_step(board, network, browser):
    ann, bob = browser.window(network), browser.window(board)
    ann.js(WATCH, "hello")
    network.freeze()
    ann.post("Ann", "hello")
    assert pending(ann) == ["hello"]
    assert ann.texts(".pending__author") == ["Ann"]
    assert ann.value("#message-form__text") == "" and not bob.shown()
    network.thaw()
    for window in ann, bob:
        window.wait_shown("hello")
    ann.wait_gone(".pending")
    seen = [counts for counts, _ in itertools.groupby(ann.js("return document.seen"))]
    assert seen[-2:] == ["1 0", "0 1"] and set(seen[:-2]) <= {"0 0"}


@console(AWAY)
def test_several_messages_wait_in_order(board, network, browser):
    ann, bob = browser.window(network), browser.window(board)
    network.freeze()
    for text in "one", "two", "three":
        ann.post("Ann", text)
    assert pending(ann) == ["three", "two", "one"]
    network.thaw()
    for window in ann, bob:
        window.wait_shown("three", "two", "one")
    ann.wait_gone(".pending")


def double_click(window, css):
    """Two clicks where the element was before the first."""
    window.js("arguments[0].scrollIntoView({ block: 'nearest' })", window.one(css))
    button = window.js("return document.querySelector(arguments[0]).getBoundingClientRect()", css)
    for count in 1, 2:
        for kind in "mousePressed", "mouseReleased":
            window.cdp("Input.dispatchMouseEvent", type=kind, button="left", clickCount=count,
                       x=button["x"] + button["width"] / 2, y=button["y"] + button["height"] / 2)


def test_a_double_click_posts_once(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    ann.fill("Ann", "once")
    double_click(ann, "#message-form__submit")
    bob.wait_shown("once")
    ann.wait_gone(".pending")
    assert ann.text("#message-form__text-note") == "0 / 200"  # And no complaint of an empty message
    bob.post("Bob", "and then")
    ann.wait_shown("and then", "once")


def test_a_double_click_on_delete_touches_no_other_message(board, browser):
    fill(board, "first", "second", "third")
    ann, bob = browser.window(board), browser.window(board)
    ann.press_on("third", ".messages__delete")
    double_click(ann, ".messages__delete-yes")
    for window in ann, bob:
        window.wait_shown("second", "first")
    assert not ann.has(".update-form, .message__confirmation, .notice")


def test_a_held_key_posts_once(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    ann.fill("Ann", "once")
    for repeat in False, True, True:
        ann.cdp("Input.dispatchKeyEvent", type="rawKeyDown", key="Enter", code="Enter", modifiers=2,
                windowsVirtualKeyCode=13, autoRepeat=repeat)
    ann.write("#message-form__text", "the next")
    bob.wait_shown("once")
    ann.wait_gone(".pending")
    assert ann.value("#message-form__text") == "the next"


@pytest.mark.parametrize("by_key", [False, True], ids=["click", "key"])
def test_a_delete_can_be_undone(board, browser, by_key):
    fill(board, "first", "second", "third")
    ann, bob = browser.window(board), browser.window(board)
    article = "return document.querySelectorAll('.message')[1].outerHTML"
    before = bob.js(article)
    ann.delete("second")
    for window in ann, bob:
        window.wait_shown("third", "first")
    ann.wait_text(".undo__message", "The message by Ann is deleted.")
    assert not bob.has(".undo")
    if by_key:
        ann.press("z", ctrl=True)
    else:
        ann.click(".undo__button")
    for window in ann, bob:
        window.wait_shown("third", "second", "first")
    assert bob.js(article).replace(" message--new", "") == before  # Id, author, time
    ann.wait_text("#announcer", "The message is back.")
    assert not ann.has(".undo")


def test_an_undo_is_offered_for_ten_seconds_and_while_somebody_is_at_it(board, browser):
    fill(board, "first", "second", "third")
    ann, bob = browser.window(board), browser.window(board)
    ann.js("""
        document.stays = new Promise((resolve) => {
          let began;
          new MutationObserver(() => {
            const offered = Boolean(document.querySelector(".undo"));
            if (offered) began ??= performance.now();
            else if (began) resolve(performance.now() - began);
          }).observe(document.body, { childList: true, subtree: true });
        });""")
    ann.delete("second")
    ann.wait_has(".undo")
    bob.delete("third")
    bob.wait_has(".undo")
    bob.js("document.querySelector('.undo__button').focus()")
    assert ann.js("return document.stays") > 9000
    assert bob.has(".undo")
    bob.press(Keys.ENTER)
    for window in ann, bob:
        window.wait_shown("third", "first")


def test_a_conflict_shows_both_texts_side_by_side(board, browser):
    fill(board, "as it was")
    ann, bob = browser.window(board), browser.window(board)
    ann.resize(1200, 900)
    for window, more in (ann, ", says Ann"), (bob, ", says Bob"):
        window.edit("as it was")
        window.press(more)
    bob.click("#message-form__submit--update")
    bob.wait_shown("as it was, says Bob")
    ann.wait_has(".update-form__note")
    ann.press(Keys.LEFT)
    ann.click("#message-form__submit--update")
    ann.wait_has(".update-form__stored")
    assert ann.text(".update-form__stored .message__text") == "as it was, says Bob"
    assert ann.value("#message-form__text--update") == "as it was, says Ann"
    stored, mine = (ann.one(css).rect for css in (".update-form__stored", "#message-form__text--update"))
    assert stored["x"] + stored["width"] <= mine["x"]
    assert stored["y"] < mine["y"] + mine["height"] and mine["y"] < stored["y"] + stored["height"]
    assert bob.shown() == ["as it was, says Bob"]
    ann.write("#message-form__text--update", "as both say")
    ann.click("#message-form__submit--update")
    for window in ann, bob:
        window.wait_shown("as both say")


def test_an_edit_form_that_comes_late_takes_no_focus(board, network, browser):
    fill(board, "as it was")
    ann = browser.window(network)
    network.freeze()
    ann.click(".messages__update")
    ann.click("#message-form__text")
    ann.press("half a thou")
    network.thaw()
    ann.wait_has(".update-form")
    ann.press("ght")
    assert ann.value("#message-form__text") == "half a thought"
    assert ann.value("#message-form__text--update") == "as it was"


def test_who_types_on_while_a_change_is_saved_loses_nothing(board, network, browser):
    fill(board, "as it was")
    ann, bob = browser.window(network), browser.window(board)
    ann.edit("as it was")
    ann.press(" once")
    network.freeze()
    ann.press(Keys.ENTER, ctrl=True)
    ann.press(" upon")
    network.thaw()
    bob.wait_shown("as it was once")
    ann.wait_text(".update-form__note", "Saved, but for what you typed since.")
    ann.press(" a time")
    ann.press(Keys.ENTER, ctrl=True)
    for window in ann, bob:
        window.wait_shown("as it was once upon a time")


def test_a_cancelled_edit_can_be_had_back(board, browser):
    fill(board, "as it was")
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("as it was")
    ann.press(", almost")
    ann.press(Keys.ESCAPE)
    ann.wait_shown("as it was")
    ann.press("z", ctrl=True)
    ann.wait_has(".update-form")
    ann.wait(lambda: ann.value("#message-form__text--update") == "as it was, almost", "what was typed")
    ann.click("#message-form__submit--update")
    for window in ann, bob:
        window.wait_shown("as it was, almost")


def test_the_form_can_be_used_again_at_once(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    ann.write("#message-form__author", "Ann")
    ann.click("#message-form__text")
    for text in "one", "two", "three":
        ann.press(text)
        ann.press(Keys.ENTER, ctrl=True)
    for window in ann, bob:
        window.wait_shown("three", "two", "one")
    assert ann.focused() == "message-form__text"
