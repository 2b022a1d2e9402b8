"""The list in the page: what others do changes what it must and disturbs nothing else."""

import pytest
from selenium.webdriver import ActionChains, Keys

from page import fill, hush, numbered

#  Where the message with a text is in the window, or what has an id
TOP = """const article = [...document.querySelectorAll(".message")].find(
  (it) => it.querySelector(".message__text")?.textContent === arguments[0]);
return (article ?? document.getElementById(arguments[0])).getBoundingClientRect().top;"""
UNDER = """const it = document.elementFromPoint(arguments[0], arguments[1]);
return (it.dataset.id ?? "") + it.className + it.id;"""


@pytest.fixture
def board(board):
    return hush(board)


def top(window, text):
    return window.js(TOP, text)


def hover(window, css, text=None):
    """Moves the pointer over something; returns where it is."""
    where = window.button(text, css) if text else window.one(css)
    ActionChains(window.here(), duration=0).move_to_element(where).perform()
    rect = where.rect
    scrolled = window.js("return scrollY")
    return rect["x"] + rect["width"] / 2, rect["y"] - scrolled + rect["height"] / 2


def test_what_did_not_change_keeps_its_node(board, browser):
    fill(board, *numbered(5))
    ann, bob = browser.window(board), browser.window(board)
    ann.js("for (const it of document.querySelectorAll('.message')) it.kept = true")
    bob.edit("message 3")
    bob.press(", changed")
    bob.click("#message-form__submit--update")
    bob.post("Bob", "new")
    ann.wait_shown("new", "message 5", "message 4", "message 3, changed", "message 2")
    kept = "return [...document.querySelectorAll('.message')].map((it) => Boolean(it.kept))"
    assert ann.js(kept) == [False, True, True, False, True]
    bob.wait_shown("new", "message 5", "message 4", "message 3, changed", "message 2")
    bob.delete("new")
    ann.wait_shown("message 5", "message 4", "message 3, changed", "message 2", "message 1")
    assert ann.js(kept) == [True, True, False, True, False]


def test_selected_text_stays_selected(board, browser):
    fill(board, *numbered(5))
    ann, bob = browser.window(board), browser.window(board)
    ann.js("getSelection().selectAllChildren(document.querySelectorAll('.message__text')[1])")
    bob.post("Bob", "new")
    bob.delete("message 5")
    ann.wait_shown("new", "message 4", "message 3", "message 2", "message 1")
    assert ann.js("return String(getSelection())") == "message 4"


def test_nothing_moves_under_the_pointer(board, browser):
    fill(board, *numbered(5))
    ann, bob = browser.window(board), browser.window(board)
    place = hover(ann, ".messages__delete", "message 3")
    before = ann.js(UNDER, *place)
    assert "messages__delete" in before
    bob.post("Bob", "new\nwith\nmany\nlines")
    ann.wait_text(".message__text", "many")
    assert ann.js(UNDER, *place) == before
    bob.wait_text(".message__text", "many")
    bob.delete("new\nwith\nmany\nlines")
    for window in ann, bob:
        window.wait(lambda: "message 1" in window.shown(), "the deletion")
    assert ann.js(UNDER, *place) == before
    bob.delete("message 5")  # Above it, and the window cannot be scrolled further up
    ann.wait(lambda: "message 5" not in ann.shown(), "the deletion")
    assert ann.js(UNDER, *place) == before


def test_a_message_that_goes_from_under_the_pointer_leaves_its_room(board, browser):
    fill(board, *numbered(5))
    ann, bob = browser.window(board), browser.window(board)
    place = hover(ann, ".messages__delete", "message 3")
    below = top(ann, "message 2")
    bob.delete("message 3")
    ann.wait_shown("message 5", "message 4", "message 2", "message 1")
    assert "room" in ann.js(UNDER, *place)
    assert top(ann, "message 2") == below
    ann.wait_has(".room:hover")
    bob.post("Bob", "new")
    ann.wait_text(".message__text", "new")
    assert "room" in ann.js(UNDER, *place)
    hover(ann, "h1")
    ann.wait_gone(".room")
    ann.wait_shown("new", "message 5", "message 4", "message 2", "message 1")


def test_the_paginator_stays_under_the_pointer(board, browser):
    fill(board, *numbered(11))
    ann, bob = browser.window(board), browser.window(board)
    place = hover(ann, "#messages__next-page")
    for text in "short", "long\n" * 20 + "text", "short again":
        bob.post("Bob", text)
        ann.wait(lambda: ann.shown()[0] == text, text)
        assert "messages__next-page" in ann.js(UNDER, *place)


def test_who_reads_further_down_is_not_moved(board, browser):
    fill(board, *(f"{number}\n" * 12 for number in range(1, 6)))
    ann, bob = browser.window(board), browser.window(board)
    ann.js("document.querySelectorAll('.message')[2].scrollIntoView()")
    reading = ann.shown()[2]
    before = top(ann, reading)
    for number in 1, 2:
        bob.post("Bob", f"new {number}\n" * 9)
        ann.wait(lambda: ann.shown()[0].startswith(f"new {number}"), "the new message")
        assert abs(top(ann, reading) - before) < 1
    bob.wait(lambda: bob.shown()[0].startswith("new 2"), "the new message")
    bob.delete(bob.shown()[0])
    ann.wait(lambda: ann.shown()[0].startswith("new 1"), "the deletion")
    assert abs(top(ann, reading) - before) < 1


def test_who_types_in_an_edit_form_is_not_moved(board, browser):
    fill(board, *numbered(5))
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("message 4")
    ann.press(", changed")
    before = top(ann, "message-form__text--update")
    bob.post("Bob", "new\n" * 9)
    ann.wait(lambda: ann.shown()[0].startswith("new"), "the new message")
    assert abs(top(ann, "message-form__text--update") - before) < 1
    bob.delete("message 5")
    ann.wait(lambda: "message 5" not in ann.shown(), "the deletion")
    assert abs(top(ann, "message-form__text--update") - before) < 1
    assert ann.focused() == "message-form__text--update"


def test_a_new_message_is_marked_for_a_moment(board, browser):
    ann, bob = browser.window(board, motion=True), browser.window(board)
    bob.post("Bob", "new")
    ann.wait_has(".message--new")
    ann.wait(lambda: not ann.js("return document.getAnimations().length"), "the mark to fade")


def test_the_focus_goes_on_when_somebody_deletes_what_has_it(board, browser):
    fill(board, *numbered(3))
    ann, bob = browser.window(board), browser.window(board)
    ann.js("arguments[0].focus()", ann.button("message 2", ".messages__delete"))
    bob.delete("message 2")
    ann.wait_shown("message 3", "message 1")
    assert ann.focused() == "messages__delete"
    ann.press(Keys.ENTER)
    ann.wait_focused("messages__delete-no")


def test_an_edit_form_goes_along_when_its_message_leaves_the_page(board, browser):
    fill(board, *numbered(5))
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("message 1")
    ann.press(", kept")
    bob.post("Bob", "new")
    ann.wait_text(".update-form__note", "on another page")
    assert ann.value("#message-form__text--update") == "message 1, kept"
    ann.press(" on")
    ann.click("#message-form__submit--update")
    ann.wait_gone(".update-form")
    ann.wait_shown("new", "message 5", "message 4", "message 3", "message 2")
    bob.click("#messages__next-page")
    bob.wait_shown("message 1, kept on")


def test_an_edit_survives_that_its_message_is_deleted_and_brought_back(board, browser):
    fill(board, *numbered(2))
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("message 1")
    ann.press(", kept")
    bob.delete("message 1")
    ann.wait_text(".update-form__note", "deleted")
    assert ann.has(".update-form__as-new")
    bob.wait_has(".undo__button")
    bob.click(".undo__button")
    ann.wait_gone(".update-form__note")
    ann.press(" on")
    ann.click("#message-form__submit--update")
    for window in ann, bob:
        window.wait_shown("message 2", "message 1, kept on")
