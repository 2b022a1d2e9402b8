"""Place: the address names what is shown; back, forward, a reload and permalinks lead there again."""

import pytest

from page import AWAY, REFUSED, console, fill, hush, numbered, wait_place


@pytest.fixture
def board(board):
    return hush(board)


def test_back_and_forward_show_the_pages_that_were_there(board, browser):
    fill(board, *numbered(11))
    ann, bob = browser.window(board), browser.window(board)
    for page in 2, 3:
        ann.click("#messages__next-page")
        wait_place(ann, f"Page {page} of 3")
    bob.post("Bob", "message 12")  # Meanwhile; nobody may be shown what was there before
    ann.wait_shown("message 2", "message 1")
    ann.back()
    ann.wait_shown("message 7", "message 6", "message 5", "message 4", "message 3")
    assert ann.path == "/?page=2"
    ann.back()
    ann.wait_shown("message 12", "message 11", "message 10", "message 9", "message 8")
    assert ann.path == "/"
    ann.forward()
    ann.wait(lambda: ann.path == "/?page=2", "page 2")
    ann.forward()
    ann.wait_shown("message 2", "message 1")
    assert ann.path == "/?page=3"
    ann.reload()
    ann.wait_text("#connection", "Live")
    assert ann.shown() == ["message 2", "message 1"]


@console(AWAY)  # The browser ends it when it puts the page into its back/forward cache
def test_who_comes_back_from_elsewhere_sees_what_is_new(board, browser):
    fill(board, *numbered(7))
    ann, bob = browser.window(board, "/?page=2"), browser.window(board)
    ann.js("document.notReloaded = true")
    ann.open(bob.js("return document.querySelector('.message__controls form').action"
                    ).removeprefix(bob.origin))
    assert ann.text("h1") == "Edit message"
    bob.post("Bob", "message 8")
    bob.wait(lambda: bob.shown()[0] == "message 8", "the message")
    ann.back()
    ann.wait_shown("message 3", "message 2", "message 1")
    assert ann.js("return document.notReloaded")  # It came from that cache
    ann.wait_text("#connection", "Live")
    assert ann.path == "/?page=2"


def test_who_posts_from_another_page_can_go_back_there(board, browser):
    fill(board, *numbered(11))
    ann, bob = browser.window(board, "/?page=3"), browser.window(board, "/?page=3")
    ann.post("Ann", "message 12")
    ann.wait(lambda: ann.shown()[0] == "message 12", "page 1")
    assert ann.path == "/"
    bob.wait_shown("message 2", "message 1")
    ann.back()
    ann.wait_shown("message 2", "message 1")
    assert ann.path == "/?page=3"


def test_a_page_that_vanishes_leaves_no_trace_in_the_history(board, browser):
    fill(board, *numbered(6))
    ann, bob = browser.window(board), browser.window(board)
    ann.click("#messages__next-page")
    ann.wait_shown("message 1")
    bob.delete("message 6")
    ann.wait_shown(*numbered(5)[::-1])
    assert ann.path == "/"
    ann.back()
    assert ann.shown() == numbered(5)[::-1]
    assert ann.path == "/"


def test_an_address_past_the_end_names_the_last_page(board, browser):
    fill(board, *numbered(6))
    ann, bob = browser.window(board, "/?page=999"), browser.window(board, "/?page=0")
    assert (ann.path, ann.shown()) == ("/?page=2", ["message 1"])
    assert (bob.path, len(bob.shown())) == ("/", 5)


def test_a_permalink_opens_the_page_with_its_message(board, browser):
    fill(board, *numbered(12))
    ann = browser.window(board, "/?page=2")
    link = ann.button("message 3", ".message__permalink").get_attribute("href")
    number = link.rsplit("/", 1)[1]
    assert link == f"{ann.origin}/messages/{number}"
    bob = browser.window(board, f"/messages/{number}")
    for window in ann, bob:
        if window is ann:
            window.button("message 3", ".message__permalink").click()
        assert window.path == f"/?page=2#message--{number}"
        assert window.js("return document.querySelector(':target .message__text').textContent") == "message 3"
        assert window.focused() == f"message--{number}"
        assert window.js("return scrollY > 0 || document.scrollingElement.scrollHeight <= innerHeight")
    fill(board, "one more", author="Bob")
    bob.wait_shown("message 8", "message 7", "message 6", "message 5", "message 4")
    ann.click("#messages__next-page")
    ann.wait_shown("message 3", "message 2", "message 1")
    assert ann.path == "/?page=3"
    ann.back()
    ann.wait(lambda: ann.path == f"/?page=2#message--{number}", "the address from before")


@console(f"{REFUSED} 404")
def test_a_permalink_to_what_is_gone_says_so(board, browser):
    fill(board, "message")
    ann, bob = browser.window(board), browser.window(board)
    link = ann.button("message", ".message__permalink").get_attribute("href")
    bob.delete("message")
    ann.wait_text(".blank", "Nothing here yet.")
    ann.open(link.removeprefix(ann.origin))
    assert ann.text(".error__status") == "404"
