"""The page while the server, the network or the database is away: nothing that was written is lost,
nothing is doubled, and everybody is told."""

import os
import re
import time

import pytest
from selenium.webdriver import Keys

from board import wait_for
from page import AWAY, REFUSED, console, fill
from proxy import Proxy

OFFLINE = "net::ERR_"  # What Chromium says of a request while it is offline
TOLD_S = 5  # Within which a lost connection is said to be lost


@pytest.fixture
def network(start):
    """A board, and a network before it that breaks when a test wants it to."""
    board = start(limits_messages_per_second=0)
    proxy = Proxy(board.port)
    proxy.board = board
    yield proxy
    proxy.close()


def texts(board):
    """What is stored, oldest first."""
    return re.findall(r'<p class="message__text"[^>]*>([^<]*)</p>', board.get("/").text)[::-1]


def assert_told(window, began):
    window.wait_text("#connection", "Connection lost")
    assert time.monotonic() - began < TOLD_S


def pending(window):
    return window.texts(".pending__text")


@console(AWAY)
def test_what_is_sent_while_the_server_is_away_is_stored_once_and_in_order(start, browser):
    board = start()
    ann, bob = browser.window(board), browser.window(board)
    began = time.monotonic()
    board.kill()
    assert_told(ann, began)
    for number in 1, 2, 3:
        ann.post("Ann", f"message {number}")
    assert pending(ann) == ["message 3", "message 2", "message 1"]
    assert "sent when the connection is back" in ann.texts(".pending__state")[0]
    again = start(http_listen=board.address)
    for window in ann, bob:
        window.wait_shown("message 3", "message 2", "message 1")
    ann.wait_gone(".pending")
    assert texts(again) == ["message 1", "message 2", "message 3"]
    assert ann.text("#connection") == bob.text("#connection") == "Live"


@console(AWAY)
def test_a_lost_answer_doubles_nothing(network, browser):
    ann, bob = browser.window(network), browser.window(network.board)
    for number in 1, 2, 3:
        network.freeze()  # The server may have it already, or not
        ann.post("Ann", f"message {number}")
        if number > 1:
            ann.wait_text("#connection", "Connection lost")
        network.cut()
        network.thaw()
        bob.wait(lambda: bob.shown()[:1] == [f"message {number}"], "the message")
        ann.wait(lambda: ann.shown() == bob.shown() and not pending(ann), "the same list")
    assert texts(network.board) == ["message 1", "message 2", "message 3"]


@console(AWAY)
def test_an_answer_that_is_lost_on_its_way_back_doubles_nothing(network, browser):
    ann, bob = browser.window(network), browser.window(network.board)
    network.hide_answers()
    ann.post("Ann", "once")
    bob.wait_shown("once")
    assert pending(ann) == ["once"]
    network.cut()
    network.show_answers()
    ann.wait_shown("once")
    ann.wait_gone(".pending")
    assert texts(network.board) == ["once"]


@console(AWAY)
def test_a_network_that_is_silently_dead_is_noticed_and_left(network, browser):
    window = browser.window(network)
    window.fill("Ann", "half a thou")
    began = time.monotonic()
    network.freeze()
    assert_told(window, began)
    window.press("ght")
    window.press(Keys.ENTER, ctrl=True)
    assert pending(window) == ["half a thought"]
    fill(network.board, "by somebody else", author="Bob")
    network.thaw()
    window.wait_shown("half a thought", "by somebody else")
    window.wait_text("#connection", "Live")
    assert texts(network.board) == ["by somebody else", "half a thought"]


@console(AWAY, OFFLINE)
def test_offline_and_online_again(network, browser):
    ann, bob = browser.window(network), browser.window(network.board)
    began = time.monotonic()
    ann.offline(True)
    assert_told(ann, began)
    ann.post("Ann", "written offline")
    bob.post("Bob", "written meanwhile")
    bob.wait_shown("written meanwhile")
    assert pending(ann) == ["written offline"]
    ann.offline(False)
    for window in ann, bob:
        window.wait_shown("written offline", "written meanwhile")
    ann.wait_gone(".pending")


@console(AWAY)
def test_what_was_queued_survives_that_the_tab_is_closed(start, browser):
    board = start()
    ann = browser.window(board)
    board.kill()
    ann.wait_text("#connection", "Connection lost")
    ann.post("Ann", "first")
    ann.post("Ann", "second")
    ann.close()
    again = start(http_listen=board.address)
    bob, heir = browser.window(again), browser.window(again)
    for window in bob, heir:
        window.wait_shown("second", "first")
        window.wait_gone(".pending")
    assert texts(again) == ["first", "second"]


def test_a_tab_that_lives_keeps_its_own_queue(start, browser, database):
    board = start()
    ann, bob = browser.window(board), browser.window(board)
    database.stop("immediate")
    try:
        ann.post("Ann", "Ann's")
        ann.wait_text(".pending__state", "sent again")
        bob.js("""
            new MutationObserver(() => document.notOwn ||= document.querySelector(".pending__text")?.textContent
              === "Ann's").observe(document.body, { childList: true, subtree: true });
            dispatchEvent(new Event("offline"));""")
        bob.wait(lambda: bob.one("#connection").get_attribute("data-state") in ("open", "away"),
                 "another connection")  # And has seen what there is to adopt
        bob.post("Bob", "Bob's")
        bob.wait_text(".pending__state", "sent again")
    finally:
        database.start()
    for window in ann, bob:
        window.wait(lambda: sorted(window.shown()) == ["Ann's", "Bob's"], "both messages")
        window.wait_gone(".pending")
    assert not bob.js("return document.notOwn")


@console(AWAY)
def test_a_tab_that_slept_is_up_to_date_when_it_wakes(start, browser):
    board = start()
    ann, bob = browser.window(board), browser.window(board)
    ann.cdp("Page.setWebLifecycleState", state="frozen")
    bob.post("Bob", "while it slept")
    bob.wait_shown("while it slept")
    assert board.stop() == 0
    bob.wait_text("#connection", "Connection lost")
    start(http_listen=board.address)
    bob.post("Bob", "before it woke")
    bob.wait_shown("before it woke", "while it slept")
    ann.cdp("Page.setWebLifecycleState", state="active")
    ann.wait_shown("before it woke", "while it slept")


@console(AWAY)
def test_an_edit_of_what_is_deleted_meanwhile_survives_a_reload(start, browser):
    board = start()
    fill(board, "other", "doomed")
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("doomed")
    ann.press(", but dear")
    bob.delete("doomed")
    ann.wait_text(".update-form__note", "deleted")
    ann.reload()
    ann.wait_text(".pending__state", "Not stored")
    assert pending(ann) == ["doomed, but dear"]
    ann.click(".pending__edit")
    ann.wait(lambda: ann.value("#message-form__text") == "doomed, but dear", "the text in the form")
    assert not ann.has(".pending")


@console(AWAY)
def test_a_change_made_while_the_server_is_away_is_saved_when_it_is_back(start, browser):
    board = start()
    fill(board, "as it was")
    ann, bob = browser.window(board), browser.window(board)
    ann.edit("as it was")
    board.kill()
    ann.wait_text("#connection", "Connection lost")
    ann.press(", and is")
    ann.click("#message-form__submit--update")
    ann.wait_text(".update-form__note", "saved when the connection is back")
    start(http_listen=board.address)
    for window in ann, bob:
        window.wait_shown("as it was, and is")
    ann.wait_gone(".update-form")


@console(AWAY)
def test_a_delete_made_while_the_server_is_away_can_be_undone_when_it_is_back(start, browser):
    board = start()
    fill(board, "stays", "goes")
    ann, bob = browser.window(board), browser.window(board)
    board.kill()
    ann.wait_text("#connection", "Connection lost")
    ann.delete("goes")
    ann.wait_text(".pending__author", "A message that you delete")
    start(http_listen=board.address)
    for window in ann, bob:
        window.wait_shown("stays")
    ann.wait_text(".undo__message", "The message by Ann is deleted.")
    ann.click(".undo__button")
    for window in ann, bob:
        window.wait_shown("goes", "stays")


@console(AWAY)
def test_a_change_that_is_refused_when_the_server_is_back_is_shown_with_its_text(start, browser):
    board = start()
    fill(board, "other", "doomed")
    ann = browser.window(board)
    ann.edit("doomed")
    board.kill()
    ann.wait_text("#connection", "Connection lost")
    ann.press(", but dear")
    ann.click("#message-form__submit--update")
    ann.reload()  # Which the browser can show from its cache only; there is no server
    again = start(http_listen=board.address)
    bob = again.client()  # Another window would take up what Ann's has left
    bob.send("delete message", id=re.findall(r'id="message--(\d+)"', bob.first)[0])
    bob.html()
    ann.open("/")
    ann.wait_text(".pending__state", "Not stored")
    assert pending(ann) == ["doomed, but dear"]
    ann.click(".pending__edit")
    ann.wait(lambda: ann.value("#message-form__text") == "doomed, but dear", "the text in the form")
    ann.click("#message-form__submit")
    ann.wait_shown("doomed, but dear", "other")
    bob.until("doomed, but dear")


@console(AWAY)
def test_what_is_discarded_can_be_had_back(start, browser):
    board = start(board_text_max=200)
    ann = browser.window(board)
    board.kill()
    ann.wait_text("#connection", "Connection lost")
    ann.post("Ann", "x" * 150)
    again = start(http_listen=board.address, board_text_max=100)  # Less than when it was written
    ann.wait_text(".pending__state", "Not stored")
    ann.click(".pending__discard")
    assert pending(ann) == []
    ann.click(".undo__button")
    assert pending(ann) == ["x" * 150]
    ann.click(".pending__edit")
    assert ann.value("#message-form__text") == "x" * 150
    assert texts(again) == []


def test_a_database_that_is_away_is_waited_for(start, browser, database):
    board = start()
    ann, bob = browser.window(board), browser.window(board)
    database.stop("immediate")
    try:
        ann.post("Ann", "stored in the end")
        ann.wait_text(".pending__state", "sent again")
        assert ann.value("#message-form__text") == ""
    finally:
        database.start()
    for window in ann, bob:
        window.wait_shown("stored in the end")
    ann.wait_gone(".pending")


@console(AWAY)
def test_a_page_that_was_asked_for_meanwhile_comes_when_the_server_is_back(start, browser):
    board = start()
    fill(board, *(f"message {number}" for number in range(1, 8)))
    window = browser.window(board)
    board.kill()
    window.wait_text("#connection", "Connection lost")
    window.click("#messages__next-page")
    window.wait_text(".notice__message", "Page 2 is shown when it is back")
    start(http_listen=board.address)
    window.wait_shown("message 2", "message 1")
    assert window.path == "/?page=2"
    assert not window.has(".notice")


@console(AWAY)
def test_a_window_comes_back_to_its_page_and_gets_what_is_new_only(start, browser):
    board = start()
    fill(board, *(f"message {number}" for number in range(1, 8)))
    window = browser.window(board, "/?page=2")
    window.js("document.querySelector('.message').kept = true")
    assert board.stop() == 0
    window.wait_text("#connection", "Connection lost")
    start(http_listen=board.address)
    window.wait_text("#connection", "Live")
    assert window.shown() == ["message 2", "message 1"]
    assert window.js("return document.querySelector('.message').kept")


@console(AWAY)
def test_an_edit_survives_a_reload(start, browser):
    board = start()
    fill(board, "as it was")
    ann = browser.window(board)
    ann.edit("as it was")
    ann.press(", almost")
    ann.reload()
    ann.wait_has(".update-form")
    ann.wait(lambda: ann.value("#message-form__text--update") == "as it was, almost", "what was typed")
    ann.click("#message-form__submit--update")
    ann.wait_shown("as it was, almost")
    ann.write("#message-form__text", "half a thought")
    ann.reload()
    assert ann.value("#message-form__text") == "half a thought"


def test_open_pages_say_that_saving_is_off_and_when_it_works_again(start, server, browser):
    proxy = Proxy(os.path.join(server.folder, f".s.PGSQL.{server.port}"))
    board = start(database_url=f"host=127.0.0.1 port={proxy.port} user=board dbname=board")
    fill(board, "as it was")
    ann = browser.window(board)
    ann.wait_text("#connection", "Live")
    proxy.refuses = True
    proxy.cut()
    ann.wait_text("#connection", "Saving is off for the moment")
    bob = browser.window(board, live=False)  # One that is opened meanwhile says so from the beginning
    assert bob.has("#away")
    bob.wait_text("#connection", "Saving is off for the moment")
    ann.post("Ann", "kept for later")
    proxy.refuses = False
    for window in ann, bob:
        window.wait_text("#connection", "Live")
        window.wait_shown("kept for later", "as it was")
        assert not window.has("#away")
    proxy.close()
