"""The five actions over the plain protocol, each client on its own page."""

import re


def ids(html):
    return [int(number) for number in re.findall(r'id="message--(\d+)"', html)]


def add(client, count, author="Ann", text="message"):
    """Adds messages one after the other; each has been answered."""
    for number in range(1, count + 1):
        client.send("add message", author=author, text=f"{text} {number}")
        client.until(f"{text} {number}<")


def test_a_new_client_gets_page_1(board):
    client = board.client()
    assert "paginator" not in client.first
    assert ids(client.first) == []
    assert client.frames() == []


def test_add_reaches_everyone(board):
    ann, bob = board.client(), board.client()
    ann.send("add message", author="  Ann ", text="first\r\nline two  ")
    for client in ann, bob:
        html = client.html()
        assert len(ids(html)) == 1
        assert ">Ann</h2>" in html
        assert "first\nline two</p>" in html
        assert client.frames() == []


def test_newest_first_five_to_a_page(board):
    ann = board.client()
    add(ann, 7)
    late = board.client()
    assert ids(late.first) == sorted(ids(late.first), reverse=True)
    assert len(ids(late.first)) == 5
    assert 'id="messages__next-page"' in late.first
    assert 'id="messages__previous-page"' not in late.first
    late.send("list messages", page=2)
    second = late.html()
    assert len(ids(second)) == 2
    assert 'id="messages__next-page"' not in second
    assert 'id="messages__previous-page"' in second
    assert re.search(r'id="paginator"[^>]*data-page="2"', second)


def test_each_client_has_its_own_page(board):
    ann, bob = board.client(), board.client()
    add(ann, 12)
    bob.until("message 12<")
    bob.send("list messages", page="2")
    assert len(ids(bob.html())) == 5
    assert ann.frames() == []  # the paging of one moves nobody else
    ann.send("add message", author="Ann", text="one more")
    ann.until("one more")
    html = bob.html()
    assert 'data-page="2"' in html
    assert "one more" not in html


def test_add_moves_its_sender_to_page_1(board):
    ann = board.client()
    add(ann, 6)
    ann.send("list messages", page=2)
    ann.html()
    ann.send("add message", author="Ann", text="look here")
    assert 'data-page="1"' in ann.until("look here")
    ann.send("add message", author="Ann", text="and here")
    ann.until("and here")


def test_pages_past_the_ends(board):
    ann = board.client()
    add(ann, 6)
    for page in 99, "99", 10**30, 2:
        ann.send("list messages", page=page)
        assert 'data-page="2"' in ann.html()
    for page in 0, -7, -(10**30), "0", 1:
        ann.send("list messages", page=page)
        assert 'data-page="1"' in ann.html()


def test_edit_form_is_private(board):
    ann, bob = board.client(), board.client()
    ann.send("add message", author="<Ann>", text="1 < 2 & \"3\"")
    (number,) = ids(ann.html())
    bob.html()
    bob.send("open edit page", id=number)
    form = bob.html(f"#message--{number}")
    assert f'data-id="{number}"' in form
    assert 'value="&lt;Ann&gt;"' in form
    assert "1 &lt; 2 &amp; &quot;3&quot;</textarea>" in form
    for part in "author", "text", "submit":
        assert f'id="message-form__{part}--update"' in form
    assert ann.frames() == []


def test_update_reaches_everyone(board):
    ann, bob = board.client(), board.client()
    add(ann, 1)
    (number,) = ids(bob.html())
    bob.send("update message", id=str(number), author="Bob", text="changed")
    for client in ann, bob:
        html = client.until("changed")
        assert ids(html) == [number]
        assert ">Bob</h2>" in html


def test_a_change_concerns_only_its_page(board):
    ann, bob = board.client(), board.client()
    add(ann, 6)
    bob.until("message 6<")
    bob.send("list messages", page=2)
    (oldest,) = ids(bob.html())
    ann.send("update message", id=oldest, author="Ann", text="old and new")
    bob.until("old and new")
    ann.html()  # its own list, though unchanged, so that it knows
    assert ann.frames() == []
    carl = board.client()
    bob.send("update message", id=oldest, author="Ann", text="once more")
    bob.until("once more")
    assert carl.frames() == []


def test_delete_reaches_everyone(board):
    ann, bob = board.client(), board.client()
    add(ann, 2)
    second, first = ids(bob.until("message 2"))
    bob.send("delete message", id=first)
    for client in ann, bob:
        assert ids(client.html()) == [second]


def test_who_was_on_a_page_that_vanished_is_on_the_last(board):
    ann, bob = board.client(), board.client()
    add(ann, 11)
    bob.until("message 11<")
    bob.send("list messages", page=3)
    (oldest,) = ids(bob.html())
    ann.send("delete message", id=oldest)
    assert 'data-page="2"' in bob.html()
    ann.frames()
    for number in ids(board.client().first):
        ann.send("delete message", id=number)
    assert "messages__previous-page" not in bob.until('data-page="1"')
    ann.send("add message", author="Ann", text="back again")
    bob.until("back again")


def test_who_is_moved_to_a_page_gets_it_though_it_was_shown_before(board):
    ann, bob = board.client(), board.client()
    add(ann, 15)
    bob.until("message 15<")
    bob.send("list messages", page=3)  # As it will be again
    bob.html()
    bob.send("list messages", page=1)
    newest = ids(bob.html())[0]
    add(ann, 1, text="one more")
    bob.until("one more")
    bob.send("list messages", page=4)
    assert len(ids(bob.html())) == 1
    ann.send("update message", id=newest, author="Ann", text="changed")  # Page 4 is read now, and so not soon
    ann.send("delete message", id=newest)
    assert 'data-page="3"' in bob.html()


def test_an_empty_board_has_no_paginator(board):
    ann = board.client()
    add(ann, 1)
    (number,) = ids(board.client().first)
    ann.send("delete message", id=number)
    html = ann.html()
    assert ids(html) == [] and "paginator" not in html


def test_what_is_gone_is_not_found(board):
    ann, bob = board.client(), board.client()
    for number in 999999, "999999", 0, -1, 2**63 - 1, 2**63, str(2**80), 10**40:
        for action in "open edit page", "update message", "delete message":
            ann.send(action, id=number, author="a", text="b")
            assert ann.notice() == "not-found"
    assert bob.frames() == []
