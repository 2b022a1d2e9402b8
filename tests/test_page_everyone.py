"""The page for everyone: what axe-core finds, what is announced, how large targets are, at any zoom."""

import gzip
import os
import re
import time

import pytest
from selenium.webdriver import Keys

from board import ROOT
from page import AWAY, REFUSED, console, fill, hush, numbered

AXE = os.path.join(ROOT, "build/axe/node_modules/axe-core/axe.min.js")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
MOST_BYTES = 20 * 1024


@pytest.fixture
def board(board):
    return hush(board)


@pytest.fixture(scope="session")
def axe():
    if not os.path.exists(AXE):
        pytest.skip("axe-core could not be had: npm install --prefix build/axe axe-core")
    with open(AXE, encoding="utf-8") as file:
        return file.read()


def assert_accessible(window, axe):
    """axe-core finds nothing in the page as it is."""
    window.js(axe)
    found = window.js("""
        document.getAnimations().forEach((animation) => animation.finish());
        return axe.run(document, { runOnly: arguments[0] }).then(({ violations }) =>
          violations.map(({ id, nodes }) => [id, ...nodes.map(({ html, failureSummary }) =>
            [html, failureSummary])]));""", RULES)
    assert found == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@console(AWAY)
def test_axe_finds_nothing_in_any_state(start, browser, axe, dark):
    board = start()
    window, other = browser.window(board, dark=dark), browser.window(board)
    assert_accessible(window, axe)
    fill(board, *numbered(12))
    window.wait_shown(*numbered(12)[:6:-1])
    assert_accessible(window, axe)
    window.press_on("message 11", ".messages__delete")
    assert_accessible(window, axe)
    window.click(".messages__delete-yes")
    window.wait_has(".undo")
    assert_accessible(window, axe)
    window.edit("message 10")
    window.press("!")
    assert_accessible(window, axe)
    other.edit("message 10")
    other.press("?")
    other.click("#message-form__submit--update")
    other.wait_gone(".update-form")
    window.wait_has(".update-form__note")
    window.click("#message-form__submit--update")
    window.wait_has(".update-form__stored")
    assert_accessible(window, axe)
    window.write("#message-form__text", "x" * 201)
    window.click("#message-form__submit")
    window.js("document.querySelector('#messages__next-page').value = 'none'")
    window.click("#messages__next-page")
    window.wait_has(".notice")
    assert_accessible(window, axe)
    window.click(".notice__dismiss")
    board.kill()
    window.wait_text("#connection", "Connection lost")
    window.post("Ann", "x" * 150)
    assert_accessible(window, axe)
    start(http_listen=board.address, board_text_max=100)
    window.wait_has(".pending--refused")
    assert_accessible(window, axe)


@console(f"{REFUSED} 4")
def test_axe_finds_nothing_in_the_pages_without_script(board, browser, axe):
    fill(board, "a message")
    window = browser.window(board, script=False)
    paths = [window.one(css).get_attribute("formaction") or window.one(css).find_element("xpath", "..").get_attribute("action")
             for css in (".messages__update", ".messages__delete")]
    for path in "/", *(path.removeprefix(window.origin) for path in paths), "/no-such-page":
        window.open(path)
        #  axe-core is a script; it comes from outside of the page
        window.cdp("Emulation.setScriptExecutionDisabled", value=False)
        window.open(path)
        assert_accessible(window, axe)
        window.cdp("Emulation.setScriptExecutionDisabled", value=True)
    window.open("/")
    window.fill(" ", "x")
    window.follow("#message-form__submit")
    assert window.text(".form-error")


def test_a_flood_is_announced_in_sum(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    ann.js("""
        document.said = [];
        new MutationObserver(() => document.said.push(
          [performance.now(), document.querySelector("#announcer").textContent]))
          .observe(document.querySelector("#announcer"), { childList: true });""")
    client = board.client()
    client.send("add message", author="Bob", text="alone")
    ann.wait(lambda: ann.js("return document.said.length") == 1, "the first announcement")
    client.html()
    written = 0
    while len(said := ann.js("return document.said")) < 3:
        client.send("add message", author="Bob", text=f"message {written}")
        client.html()
        written += 1
    assert said[0][1] == "New message by Bob"
    assert all(re.fullmatch(r"\d+ new messages\xa0?", text) for _, text in said[1:])
    moments = [moment for moment, _ in said]
    assert all(later - earlier > 4900 for earlier, later in zip(moments, moments[1:]))
    assert bob.shown()[0].startswith("message")


def test_what_a_screen_reader_is_told(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    assert ann.one("#connection").get_attribute("role") == "status"
    for region in "#announcer", "#undos":
        assert ann.one(region).get_attribute("role") == "status"
    ann.post("Ann", "mine")
    ann.wait_text("#announcer", "Your message is posted.")
    bob.wait_text("#announcer", "New message by Ann")
    assert "New message" not in ann.text("#announcer")
    ann.delete("mine")
    ann.wait_text("#undos", "The message by Ann is deleted.")
    ann.press("z", ctrl=True)
    ann.wait_text("#announcer", "The message is back.")
    ann.edit("mine")
    ann.press(", changed")
    ann.press(Keys.ENTER, ctrl=True)
    ann.wait_text("#announcer", "Your change is saved.")
    fill(board, *numbered(5))
    ann.wait_has("#messages__next-page")
    ann.click("#messages__next-page")
    ann.wait_text("#announcer", "Page 2 of 2")


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_every_target_is_large_enough(board, browser, touch):
    fill(board, *numbered(6))
    window, other = browser.window(board), browser.window(board)
    window.resize(390, 844, mobile=touch)
    window.press_on("message 6", ".messages__delete")
    window.edit("message 5")
    other.delete("message 3")
    sizes = window.js("""
        return [...document.querySelectorAll("button, a, input:not([type=hidden]), textarea")]
          .filter((it) => it.getClientRects().length)
          .map((it) => [it.className, it.getBoundingClientRect().height, it.getBoundingClientRect().width]);""")
    assert [size for size in sizes if min(size[1:]) < 24] == []
    if touch and window.js("return matchMedia('(pointer: coarse)').matches"):
        assert [size for size in sizes if min(size[1:]) < 44 and "permalink" not in size[0]] == []


@pytest.mark.parametrize("width, height, text", [(640, 400, 1), (390, 844, 2), (320, 256, 1)],
                         ids=["zoomed to 200 %", "text of twice the size", "zoomed to 400 %"])
def test_it_can_be_enlarged(board, browser, width, height, text):
    fill(board, *numbered(6))
    window, other = browser.window(board), browser.window(board)
    window.resize(width, height, scale=2)
    window.js("document.documentElement.style.fontSize = `${arguments[0] * 16}px`", text)
    window.edit("message 6")
    window.press("!")
    other.edit("message 6")
    other.press("?")
    other.click("#message-form__submit--update")
    other.wait_gone(".update-form")
    window.wait_has(".update-form__note")
    window.click("#message-form__submit--update")
    window.wait_has(".update-form__stored")
    window.press_on("message 5", ".messages__delete")
    assert window.js("return document.scrollingElement.scrollWidth - innerWidth") <= 0
    assert window.js("""
        const edge = (it) => it.getBoundingClientRect().right;
        return [...document.querySelectorAll(".message-form, .update-form, .message__footer")]
          .flatMap((box) => [...box.querySelectorAll("*")].filter((it) => edge(it) > edge(box) + 0.5 &&
            !it.closest(".message__controls, .unseen"))).map((it) => it.outerHTML);""") == []
    assert window.js("return innerHeight - document.querySelector('.messages__delete-no')"
                     ".getBoundingClientRect().bottom") >= 0


def test_who_wants_no_motion_sees_none(board, browser):
    ann, bob = browser.window(board), browser.window(board)
    bob.post("Bob", "new")
    ann.wait_has(".message--new")
    shown = ann.js("""
        const { backgroundColor } = getComputedStyle(document.querySelector(".message--new"));
        return [backgroundColor, document.getAnimations().map(({ effect }) =>
          getComputedStyle(effect.target).animationTimingFunction)];""")
    assert shown[0] != "rgba(0, 0, 0, 0)"  # It is marked all the same
    assert set(shown[1]) == {"steps(1)"}
    ann.wait(lambda: not ann.js("return document.getAnimations().length"), "the mark to go")


def test_the_page_is_small(board, browser):
    def size(path):
        answer = board.get(path, Accept_Encoding="gzip")
        packed = answer.getheader("Content-Encoding") == "gzip"
        return len(answer.body if packed else gzip.compress(answer.body))

    window = browser.window(board)
    loaded = window.js("return performance.getEntriesByType('resource').map(({ name }) => name)")
    loaded = [name.removeprefix(window.origin) for name in loaded]
    assert any(".js" in name for name in loaded) and any(".css" in name for name in loaded)
    assert size("/") + sum(size(path) for path in loaded if path.startswith("/static/")) <= MOST_BYTES
