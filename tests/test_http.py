"""Pages, forms, assets and probes over HTTP: what the contract says in its sections 1 and 5."""

import gzip
import re
import socket
import urllib.parse

import pytest

from board import PATH, wait_for
from markup import Markup
from raw import Raw, handshake, request

EVIL = "<script>alert(1)</script> & \"double\" 'single' </textarea></title>"
NASTY = "</script><img src=x onerror=alert(2)>"
FORM = ("Content-Type", "application/x-www-form-urlencoded")
HOST = ("Host", "localhost")


def fields(author="Ann", message="Hello", **others):
    """A form's body; a field that is None is left out; bytes go as they are."""
    given = {"author": author, "message": message, **others}
    return urllib.parse.urlencode({key: value for key, value in given.items() if value is not None})


def stored(database):
    return database.sql("SELECT author, text FROM messages ORDER BY id")


def put(database, count, author="Ann"):
    """Stores messages as another program would."""
    database.sql(
        "INSERT INTO messages (author, text, created_at)"
        " SELECT %s, 'message ' || n, now() + n * interval '1 ms' FROM generate_series(1, %s) n",
        author, count,
    )


def filled(board, database, count):
    """The board, which has come to know of so many messages."""
    put(database, count)
    newest = f">message {count}</p>"
    wait_for(lambda: newest in board.get("/").text, "the messages on the page")
    return board


def message_id(database):
    return database.sql("SELECT max(id) FROM messages")[0][0]


def is_protected(answer):
    """Whether the answer has the security headers; an assertion fails when not."""
    policy = answer["Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"]
    return True


def is_scriptless(html):
    """Whether nothing in the HTML needs what the policy forbids; returns the markup."""
    markup = Markup(html)
    for element in markup.elements:
        assert "style" not in element.attributes
        assert not [name for name in element.attributes if name.startswith("on")]
        if element.tag == "script":
            assert element["src"].startswith("/static/") and element.text == ""
        assert element.tag != "style"
    return markup


#  ---------------------------------------------------------------- The page


def test_the_page_is_complete_without_script(board, database):
    page = filled(board, database, 12).get("/?page=2")
    assert page.status == 200
    assert page.getheader("Content-Type") == "text/html; charset=utf-8"
    markup = is_scriptless(page.text)

    body = markup.one("body")
    assert body["data-host"] == board.address
    assert body["data-scheme"] == "http"
    section = markup.one("section", "message-form")
    form = next(form for form in markup.all("form") if form.inside(section))
    assert form.parent is section
    assert (form["method"], form["action"]) == ("post", "/messages")
    author, text = markup.by_id("message-form__author"), markup.by_id("message-form__text")
    assert author["name"] == "author" and "required" in author.attributes and author.inside(form)
    assert text["name"] == "message" and "required" in text.attributes and text.inside(form)
    assert markup.by_id("message-form__submit").inside(form)

    messages = markup.by_id("messages")
    assert messages.tag == "section"
    container = markup.by_id("messages__list")
    assert container.tag == "div" and container.inside(messages)
    articles = markup.all("article", "message")
    assert [article.inside(container) for article in articles] == [True] * 5
    texts = [element.text for element in markup.all("p", "message__text")]
    assert texts == [f"message {number}" for number in (7, 6, 5, 4, 3)]
    assert {element.text for element in markup.all("h2", "message__author")} == {"Ann"}

    paginator = markup.by_id("paginator")
    assert paginator["data-page"] == "2" and paginator.inside(container)
    for name, number in ("previous", "1"), ("next", "3"):
        button = markup.by_id(f"messages__{name}-page")
        assert button.tag == "button" and "button" in button.classes and button.inside(paginator)
        assert (button["name"], button["value"]) == ("page", number)
        assert (button.parent["method"], button.parent["action"]) == ("get", "/")


def test_a_message_has_its_parts(board, database):
    markup = Markup(filled(board, database, 1).get("/").text)
    number = message_id(database)
    article = markup.by_id(f"message--{number}")
    assert article.tag == "article" and "message" in article.classes
    footer = markup.one("footer", "message__footer")
    for tag, css, parent in (
        ("h2", "message__author", article),
        ("p", "message__text", article),
        ("footer", "message__footer", article),
        ("time", "message__created_at", footer),
        ("div", "message__controls", footer),
    ):
        assert markup.one(tag, css).inside(parent)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
                        markup.one("time")["datetime"])
    permalink = markup.one("a", "message__permalink")
    assert permalink["href"] == f"/messages/{number}"
    assert permalink.parent is markup.one("time", "message__created_at")
    controls = markup.one("div", "message__controls")
    for name, text, method, action in (
        ("update", "Edit", "get", f"/messages/{number}/edit"),
        ("delete", "Delete", "get", f"/messages/{number}/delete"),
    ):
        button = markup.one("button", f"messages__{name}")
        assert "button" in button.classes and button.inside(controls)
        assert button["data-id"] == str(number) and button.text == text
        assert (button.parent["method"], button.parent["action"]) == (method, action)


def test_an_empty_page(board):
    markup = is_scriptless(board.get("/").text)
    assert markup.by_id("messages__list") and markup.by_id("message-form__text")
    assert markup.all("article") == [] and markup.by_id("paginator") is None


def test_paginator_at_the_ends(board, database):
    filled(board, database, 6)
    first, last = Markup(board.get("/").text), Markup(board.get("/?page=2").text)
    assert first.by_id("paginator")["data-page"] == "1"
    assert first.by_id("messages__previous-page") is None and first.by_id("messages__next-page")
    assert last.by_id("paginator")["data-page"] == "2"
    assert last.by_id("messages__next-page") is None and last.by_id("messages__previous-page")
    for page in first, last:  # Previous and Next lead everywhere
        assert page.by_id("messages__first-page") is None and page.by_id("messages__last-page") is None
        assert page.by_id("messages__page-number") is None


@pytest.mark.parametrize("page, first, last", [(1, None, "5"), (2, None, "5"), (3, "1", "5"), (4, "1", None),
                                               (5, "1", None)])
def test_paginator_of_many_pages(board, database, page, first, last):
    markup = is_scriptless(filled(board, database, 21).get(f"/?page={page}").text)
    for name, number in ("first", first), ("last", last):
        button = markup.by_id(f"messages__{name}-page")
        assert (button and (button["name"], button["value"])) == (number and ("page", number))
        assert not button or (button.parent["method"], button.parent["action"]) == ("get", "/")
    field = markup.by_id("messages__page-number")
    assert (field["name"], field["value"], field["inputmode"]) == ("page", str(page), "numeric")
    form = next(form for form in markup.all("form") if field.inside(form))
    assert (form["method"], form["action"]) == ("get", "/") and form.inside(markup.by_id("paginator"))
    assert field.parent.tag == "label" and field.parent.text.split() == ["Page", "of", "5"]


def test_any_page_number(board, database):
    filled(board, database, 12)
    last = "3 4 99 003 9223372036854775807 9223372036854775808 1" + "0" * 400
    for shown, queries in {
        "3": [f"page={number}" for number in last.split()] + ["x=1&page=3", "page=%33", "page=3&x"],
        "2": ["page=2", "page=+2", "page=2%20", "page=%09%202+"],
        "1": ["", "page=", "page", "page=0", "page=-1", "page=-" + "9" * 40, "page=abc", "page=1.5",
              "page=1e1", "page=%20", "page=%00", "page=%FF", "page=%zz", "page=%D9%A3", "page=+",
              "page=2x", "PAGE=2", "page[]=2", "&&&", "page=<script>", "?page=2"],
    }.items():
        for query in queries:
            page = board.get(f"/?{query}")
            assert page.status == 200, query
            assert Markup(page.text).by_id("paginator")["data-page"] == shown, query
    assert "page=<script>" not in page.text


def test_escaping(start, database):
    board = start(board_title=EVIL[:100])
    database.sql("INSERT INTO messages (author, text, created_at) VALUES (%s, %s, now())",
                 EVIL, NASTY)
    wait_for(lambda: "article" in board.get("/").text, "the message on the page")
    number = message_id(database)
    bad = "x" * 201 + EVIL
    for page in (
        board.get("/"),
        board.get(f"/messages/{number}/edit"),
        board.post("/messages", fields(EVIL, bad)),
        board.post(f"/messages/{number}", fields(EVIL, bad)),
        board.post(f"/messages/{number}", fields(EVIL, NASTY, version="7")),
        board.get("/<script>alert(1)</script>"),
        board.get("/messages/<script>"),
    ):
        markup = is_scriptless(page.text)
        assert EVIL in markup.one("title").text
        assert not [image for image in markup.all("img") if image["src"] == "x"]
    markup = Markup(board.get("/").text)
    assert markup.one("h2", "message__author").text == EVIL
    assert markup.one("p", "message__text").text == NASTY
    live = board.client()
    markup = is_scriptless(live.first)
    assert markup.one("h2", "message__author").text == EVIL
    live.send("open edit page", id=number)
    markup = is_scriptless(live.html(f"#message--{number}"))
    assert markup.by_id("message-form__author--update")["value"] == EVIL
    assert markup.by_id("message-form__text--update").text == NASTY


def test_scheme_comes_from_a_trusted_proxy_only(board, start):
    proxied = start(http_trust_proxy="yes")
    https = {"X_Forwarded_Proto": "https"}
    for page, scheme in (
        (board.get("/", **https), "http"),
        (proxied.get("/"), "http"),
        (proxied.get("/", **https), "https"),
        (proxied.get("/", X_Forwarded_Proto="javascript"), "http"),
    ):
        assert Markup(page.text).one("body")["data-scheme"] == scheme
    # Then Origin's scheme counts as well
    for origin, status in ("https", 303), ("http", 403):
        answer = proxied.post("/messages", fields(), Origin=f"{origin}://{proxied.address}", **https)
        assert answer.status == status, origin


def test_head_wherever_get_works(board, database):
    filled(board, database, 1)
    number = message_id(database)
    style = re.search(r'"(/static/[^"]+css[^"]*)"', board.get("/").text).group(1)
    for path in (
        "/", "/?page=2", f"/messages/{number}/edit", "/messages/999999/edit", style,
        "/healthz", "/readyz", "/absent", "/static/absent.css",
    ):
        get = board.get(path)
        with Raw(board.address) as raw:
            head = raw.ask("HEAD", path, ("Host", board.address), ("Connection", "close"))
            assert raw.rest() == b"", path  # nothing behind the headers
        assert head.status == get.status, path
        changing = {"Date", "Connection"}
        headers = {name: value for name, value in get.getheaders() if name not in changing}
        assert {name: head[name] for name in headers} == headers, path
        assert int(head["Content-Length"]) == len(get.body)
    with Raw(board.address) as raw:
        assert raw.ask("HEAD", "/metrics", HOST).status == 200
        assert raw.ask("GET", "/healthz", HOST).text == "ok\n"  # the connection is in step


#  ---------------------------------------------------------------- Forms


def test_post_adds(board, database):
    live = board.client()
    answer = board.post("/messages", fields("\u3000\u00a0Ann \u2003", "\r\n one\r\ntwo \t\u2028"))
    assert answer.status == 303
    assert answer.getheader("Location") == "/"
    assert stored(database) == [("Ann", "one\ntwo")]
    assert "one\ntwo</p>" in live.html()
    assert "one\ntwo</p>" in board.get("/").text  # who is led back sees it


def test_post_takes_what_people_write(board, database):
    for author, text in (
        ("Zoë & Čeněk", "1+1=2; 100 %"),
        ("👩‍👩‍👧", "مرحبا\n世界"),
        ("a=b", "<b>&amp;</b>"),
    ):
        board.post("/messages", fields(author, text))
        assert stored(database)[-1] == (author, text)
    # UTF-8 as such, as tools send it, and a media type with a parameter
    body = "author=Ren%C3%A9&message=".encode() + "voilà".encode()
    kind = f"{FORM[1].title()} ; charset=UTF-8"
    assert board.post("/messages", body, Content_Type=kind).status == 303
    assert stored(database)[-1] == ("René", "voilà")


def test_post_updates(board, database):
    filled(board, database, 6)
    live = board.client()
    (number,) = database.sql("SELECT min(id) FROM messages")[0]
    markup = is_scriptless(board.get(f"/messages/{number}/edit").text)
    form = markup.one("form", "update-form")
    assert form["data-id"] == str(number)
    assert (form["method"], form["action"]) == ("post", f"/messages/{number}")
    author = markup.by_id("message-form__author--update")
    text = markup.by_id("message-form__text--update")
    assert (author["name"], author["value"]) == ("author", "Ann")
    assert (text["name"], text.text) == ("message", "message 1")
    assert markup.by_id("message-form__submit--update").inside(form)
    assert form.inside(markup.by_id(f"message--{number}"))

    answer = board.post(f"/messages/{number}", fields(" Bob", "changed\r\n"))
    assert answer.status == 303
    assert answer.getheader("Location") in ("/", "/?page=2")
    assert stored(database)[0] == ("Bob", "changed")
    live.send("list messages", page=2)
    live.until("changed</p>")


def test_an_update_of_what_has_changed_since_is_a_conflict(board, database):
    filled(board, database, 1)
    number = message_id(database)
    version = Markup(board.get(f"/messages/{number}/edit").text)
    (version,) = [one["value"] for one in version.all("input") if one["name"] == "version"]
    assert board.post(f"/messages/{number}", fields("Bob", "first", version=version)).status == 303
    answer = board.post(f"/messages/{number}", fields("Carl", "second", version=version))
    assert answer.status == 409
    assert "first" in answer.text and "second" in answer.text
    assert stored(database) == [("Bob", "first")]
    markup = is_scriptless(answer.text)
    (version,) = [one["value"] for one in markup.all("input") if one["name"] == "version"]
    again = fields(
        markup.by_id("message-form__author--update")["value"],
        markup.by_id("message-form__text--update").text,
        version=version,
    )
    assert board.post(f"/messages/{number}", again).status == 303  # ready to be sent again
    assert stored(database) == [("Carl", "second")]


def test_post_deletes(board, database):
    filled(board, database, 2)
    live = board.client()
    number = message_id(database)
    answer = board.post(f"/messages/{number}/delete", "")
    assert answer.status == 303
    assert answer.getheader("Location") == "/"
    assert f"message--{number}" not in live.html()
    assert stored(database) == [("Ann", "message 1")]
    assert board.post(f"/messages/{number}/delete", "").status == 404


def test_a_delete_without_script_is_asked_first(board, database):
    filled(board, database, 1)
    number = message_id(database)
    page = board.get(f"/messages/{number}/delete")
    assert page.status == 200 and is_protected(page.headers)
    markup = is_scriptless(page.text)
    article = markup.by_id(f"message--{number}")
    assert markup.one("p", "message__text").text == "message 1"
    form = markup.one("form", "delete-form")
    assert (form["method"], form["action"]) == ("post", f"/messages/{number}/delete")
    assert markup.by_id("delete-form__submit").inside(form) and form.inside(article)
    assert markup.one("a", "delete-form__cancel")["href"] == f"/messages/{number}"
    assert stored(database) == [("Ann", "message 1")]
    assert board.post(form["action"], "").status == 303
    assert stored(database) == []
    assert board.get(f"/messages/{number}/delete").status == 404


def test_a_permalink_leads_to_the_page_of_its_message(board, database):
    filled(board, database, 12)
    numbers = [number for (number,) in database.sql("SELECT id FROM messages ORDER BY id DESC")]
    for place, number in enumerate(numbers):
        page = place // 5 + 1
        for method in "GET", "HEAD":
            answer = board.request(method, f"/messages/{number}")
            assert answer.status == 302
            assert answer.getheader("Location") == f"/?page={page}#message--{number}"
        assert f'id="message--{number}"' in board.get(f"/?page={page}").text
    database.sql("UPDATE messages SET created_at = now() + '1 h'::interval WHERE id = %s", numbers[11])
    location = board.get(f"/messages/000{numbers[11]}").getheader("Location")
    assert location == f"/?page=1#message--{numbers[11]}"  # Wherever it is now
    for number in numbers[0] + 1, 0, 99999999999999999999:
        assert board.get(f"/messages/{number}").status == 404


def test_pages_of_equal_times_are_told_apart_by_id(board, database):
    database.sql("INSERT INTO messages (author, text, created_at)"
                 " SELECT 'Ann', 'equal', '2026-01-01' FROM generate_series(1, 7)")
    numbers = [number for (number,) in database.sql("SELECT id FROM messages ORDER BY id DESC")]
    pages = [board.get(f"/messages/{number}").getheader("Location")[:8] for number in numbers]
    assert pages == ["/?page=1"] * 5 + ["/?page=2"] * 2


def form_key(html):
    (key,) = [one["value"] for one in Markup(html).all("input") if one["name"] == "key"]
    return key


def test_a_form_that_is_sent_twice_adds_once(board, database):
    key, other = form_key(board.get("/").text), form_key(board.get("/").text)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key) and key != other
    for _ in range(3):
        assert board.post("/messages", fields("Ann", "once", key=key)).status == 303
    assert stored(database) == [("Ann", "once")]
    # Back in the browser, and something else typed into the same form
    assert board.post("/messages", fields("Ann", "twice", key=key)).status == 303
    assert board.post("/messages", fields("Ann", "once", key=other)).status == 303
    assert stored(database) == [("Ann", "once"), ("Ann", "twice"), ("Ann", "once")]


def test_a_form_that_comes_back_keeps_its_key(board, database):
    key = form_key(board.get("/").text)
    answer = board.post("/messages", fields("", "typed", key=key))
    assert answer.status == 422 and form_key(answer.text) == key
    assert board.post("/messages", fields("Ann", "typed", key=key)).status == 303
    answer = board.post("/messages", fields("Ann", "typed", key="no key"))
    assert answer.status == 422 and form_key(answer.text) not in (key, "no key")
    assert stored(database) == [("Ann", "typed")]


def test_limits_are_counted_in_code_points(board, database):
    author, text = "😀" * 100, "👍🏽" * 100
    assert board.post("/messages", fields(f" {author}\n", f"\r\n{text} ")).status == 303
    assert stored(database) == [(author, text)]
    for fieldset in fields(author + "😀", text), fields(author, text + "é"):
        assert board.post("/messages", fieldset).status == 422
    assert stored(database) == [(author, text)]


INVALID = [
    ("author", "", "empty"),
    ("author", " \t\r\n\u3000\u2029\u0085", "empty"),
    ("author", "😀" * 101, "100"),
    ("author", None, "missing"),
    ("author", "A\0nn", "NUL"),
    ("message", "", "empty"),
    ("message", "\r\n\u00a0\u1680", "empty"),
    ("message", "\n\n😀" + "x" * 200, "200"),
    ("message", None, "missing"),
    ("message", "\0", "NUL"),
]


@pytest.mark.parametrize("existing", [False, True], ids=["add", "update"])
def test_what_is_invalid_comes_back_with_the_error(board, database, existing):
    filled(board, database, 1)
    before, suffix = stored(database), "--update" if existing else ""
    path = f"/messages/{message_id(database)}" if existing else "/messages"
    live = board.client()
    for name, value, words in INVALID:
        typed = {"author": "Kept \"name\"", "message": " Kept\n<text> ", name: value}
        answer = board.post(path, fields(**typed))
        assert answer.status == 422, (name, value)
        assert "\0" not in answer.text
        markup = is_scriptless(answer.text)
        error = markup.one("p", "form-error")
        field = "text" if name == "message" else name
        assert error["role"] == "alert" and error.text.startswith(field) and words in error.text
        author = markup.by_id(f"message-form__author{suffix}")
        text = markup.by_id(f"message-form__text{suffix}")
        assert error.parent is text.parent.parent
        # A NUL cannot stand in HTML, so such a field comes back as far as it goes
        if "\0" not in (typed["author"] or ""):
            assert author["value"] == (typed["author"] or ""), (name, value)
        if "\0" not in (typed["message"] or ""):
            assert text.text == (typed["message"] or ""), (name, value)
        if not existing:
            assert markup.one("article")  # the list is there as ever
    assert stored(database) == before
    live.send("open edit page", id=0)
    assert live.notice() == "not-found"  # nothing else came before


def test_a_form_not_encoded_as_one_is_refused(board, database):
    for body in (
        b"author=%FF&message=x", b"author=\xff&message=x", b"author=%ED%A0%80&message=x",
        b"author=%C0%80&message=x", b"author=%&message=x", b"author=%4&message=x",
        b"author=%zz&message=x", b"author=a&author=b&message=x",
    ):
        answer = board.post("/messages", body)
        assert answer.status in (400, 422), body
        assert is_scriptless(answer.text)
    assert stored(database) == []


def test_a_form_of_another_media_type_is_refused(board, database):
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x",
                 "application/x-www-form-urlencoded-evil", "", "x"):
        answer = board.post("/messages", fields(), Content_Type=kind)
        assert (answer.status, is_protected(answer.headers)) == (415, True), kind
    with Raw(board.address) as raw:
        body = fields()
        length = ("Content-Length", len(body))
        assert raw.ask("POST", "/messages", HOST, length, body=body).status == 415
    assert stored(database) == []


def test_a_form_too_large_is_refused(board, database):
    def posted(size):
        return board.post("/messages", "author=".ljust(size, "x")).status

    assert posted(65536) == 422
    for size in 65537, 200000, 1000000:
        assert posted(size) == 413, size
    assert stored(database) == []


def test_a_form_must_tell_its_length(board, database):
    body = fields()
    refused = {
        411: [(), [("Transfer-Encoding", "chunked")],
              [("Transfer-Encoding", "chunked"), ("Content-Length", len(body))]],
        400: [[("Content-Length", len(body))] * 2,
              [("Content-Length", len(body)), ("Content-Length", len(body) + 1)]],
        413: [[("Content-Length", 10**30)], [("Content-Length", 2**40)]],
        None: [[("Content-Length", "-1")], [("Content-Length", "0x10")], [("Content-Length", "")],
               [("Content-Length", "8 8")], [("Content-Length", "+8")]],
    }
    for status, cases in refused.items():
        for headers in cases:
            with Raw(board.address) as raw:
                chunked = ("Transfer-Encoding", "chunked") in headers
                sent = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n" if chunked else body
                answer = raw.ask("POST", "/messages", HOST, FORM, *headers, body=sent)
                assert answer.status == status or status is None and answer.status in (400, 411), (
                    headers, answer.status)
                assert is_protected(answer)
                raw.rest()  # no second answer, to what it took for a request
                assert raw.received == b"", headers
    assert stored(database) == []


def test_a_form_cut_short_is_not_stored(board, database):
    with Raw(board.address) as raw:
        body = fields()
        raw.send(request("POST", "/messages", HOST, FORM, ("Content-Length", 100), body=body))
        raw.socket.shutdown(socket.SHUT_WR)
        rest = raw.rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408 ")
    assert stored(database) == []


def test_expect_100_continue(board, database):
    with Raw(board.address) as raw:
        body = fields()
        raw.send(request("POST", "/messages", HOST, FORM, ("Content-Length", len(body)),
                         ("Expect", "100-continue")))
        assert raw.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(body)
        assert raw.answer().status == 303
    assert stored(database) == [("Ann", "Hello")]


def test_a_refused_body_is_never_taken_for_a_request(board, database):
    filled(board, database, 1)
    number = message_id(database)
    posted = fields(message="smuggled")
    body = (request("POST", "/messages", HOST, FORM, ("Content-Length", len(posted))).decode()
            + posted)
    for path, header in (
        ("/messages", ("Origin", "null")), (f"/messages/{number}", ("Origin", "null")),
        (f"/messages/{number}/delete", ("Origin", "null")), ("/messages", ("X", "no type")),
        ("/messages/999999/delete", ("X", "y")), ("/absent", ("X", "y")), (PATH, ("X", "y")),
        ("/", ("X", "y")), ("/healthz", ("X", "y")),
    ):
        with Raw(board.address) as raw:
            answer = raw.ask("POST", path, HOST, header, ("Content-Length", len(body)), body=body)
            assert answer.status >= 400
            if answer["Connection"] == "keep-alive":
                assert raw.ask("GET", "/healthz", HOST, ("Connection", "close")).text == "ok\n"
            assert raw.rest() == b""
    assert stored(database) == [("Ann", "message 1")]


#  ---------------------------------------------------------------- Origin and Host


def test_origin_of_writes(board, database):
    filled(board, database, 1)
    number, same = message_id(database), f"http://{board.address}"
    port = board.port
    for origin in (
        "null", "", "http://evil.example", f"http://evil.example:{port}", "http://127.0.0.1",
        f"http://127.0.0.1:{port + 1}", f"http://localhost:{port}", f"{same}.evil.example",
        f"{same}@evil.example", f"{same}/", f"{same} http://evil.example", "file://", board.address,
        f"//{board.address}", f"http://127.0.0.1.evil.example:{port}", f"http://127.0.0.1:0{port}0",
        f"ftp://{board.address}",
    ):
        for path in "/messages", f"/messages/{number}", f"/messages/{number}/delete":
            answer = board.post(path, fields(), Origin=origin)
            assert answer.status == 403, (path, origin)
            assert is_protected(answer.headers)
    with Raw(board.address) as raw:
        answer = raw.ask("POST", f"/messages/{number}/delete", ("Host", board.address),
                         ("Origin", same), ("Origin", "http://evil.example"), FORM,
                         ("Content-Length", 0))
        assert answer.status == 403
    assert stored(database) == [("Ann", "message 1")]
    # The scheme is not compared, since without a trusted proxy nobody knows it
    for origin in same, f"HTTP://{board.address}", f"https://{board.address}":
        assert board.post("/messages", fields(message=origin), Origin=origin).status == 303, origin
    assert len(stored(database)) == 4


def test_allowed_origins(start, database):
    board = start(http_allowed_origins="https://friend.example http://other.example:8000")
    for origin, status in {
        "https://friend.example": 303, "https://friend.example:443": 303,
        "https://FRIEND.example": 303, "http://other.example:8000": 303,
        f"http://{board.address}": 303, "http://friend.example": 403,
        "https://friend.example:8000": 403, "http://other.example": 403, "https://example": 403,
        "https://a.friend.example": 403, "https://friend.example.evil": 403, "null": 403,
    }.items():
        assert board.post("/messages", fields(message=origin), Origin=origin).status == status
    assert len(stored(database)) == 5


LOOPBACK_NAMES = ["localhost", "LocalHost", "foo.localhost", "a.b.localhost", "127.0.0.1"]
OTHER_NAMES = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost",
               ".localhost.evil", "board.example.evil", "10.0.0.1"]


def test_a_board_on_loopback_answers_to_loopback_names(board, database):
    for name in LOOPBACK_NAMES:
        for host in name, f"{name}:{board.port}", f"{name}:1":
            assert board.get("/", Host=host).status == 200, host
    for name in OTHER_NAMES:
        for host in name, f"{name}:{board.port}":
            for path in "/", "/healthz", "/absent", PATH, "/static/breadboard.css":
                answer = board.get(path, Host=host)
                assert (answer.status, is_protected(answer.headers)) == (403, True), (host, path)
            answer = board.post("/messages", fields(), Host=host, Origin=f"http://{host}")
            assert answer.status == 403, host
    assert stored(database) == []


def test_what_is_no_host_is_refused(board):
    for host in ("", "\"><script>", "a b", "localhost:port", "localhost:99999", "localhost:-1",
                 "user@localhost", "localhost/", "http://localhost", "localhost,localhost", "[",
                 "localhost:80:80", "lo%63alhost", "löcalhost"):
        answer = board.get("/", Host=host.encode())
        assert answer.status in (400, 403), host
        assert is_protected(answer.headers) and is_scriptless(answer.text)
    for hosts in (), [HOST] * 2:
        with Raw(board.address) as raw:
            answer = raw.ask("GET", "/", *hosts)
            assert (answer.status, is_protected(answer)) == (400, True)


def test_allowed_hosts(start):
    board = start(http_allowed_hosts="board.example other.example")
    allowed = ["board.example", "BOARD.example", "board.example:80", "other.example:8000"]
    for host in allowed + LOOPBACK_NAMES:
        assert board.get("/", Host=host).status == 200, host
    for host in [*OTHER_NAMES, "a.board.example", "xboard.example", "board.example.", "example"]:
        assert board.get("/", Host=host).status == 403, host


def test_a_board_for_all_answers_to_any_name(start):
    board = start(http_listen="0.0.0.0:0")
    for host in OTHER_NAMES + LOOPBACK_NAMES:
        if not host.startswith("."):
            assert board.get("/", Host=host).status == 200, host


#  ---------------------------------------------------------------- Refusals


def test_what_is_not_there_is_404(board, database):
    filled(board, database, 1)
    for path in (
        "/absent", "/index.html", "//", "/healthz/", "/HEALTHZ", "/messages/", "/messages/x",
        "/messages/x/edit", "/messages/1/zap", "/messages/1/edit/", "/messages/-1", "/messages/1x",
        "/messages/%31", "/messages//edit", "/messages/999999/edit", "/messages/0/edit",
        f"/messages/{2**63}/edit", f"/messages/1{'0' * 400}/edit", "/static/", "/static", "/..",
        "/.", "/%2e", "/./", "/templates/index.html", "/ws", "/favicon.ico", "/%", "/%zz", "/%00",
        "/\\", "/;", "/ws/social-network", PATH + "x", "/%0d%0aSet-Cookie:x",
    ):
        answer = board.get(path)
        assert answer.status == 404, path
        assert is_protected(answer.headers)
        assert answer.getheader("Set-Cookie") is None
        assert is_scriptless(answer.text).one("title")
    for number in "999999", "0", str(2**63), "1" + "0" * 400:
        for verb in "", "/delete":
            assert board.post(f"/messages/{number}{verb}", fields()).status == 404, (number, verb)
    assert stored(database) == [("Ann", "message 1")]


def test_a_wrong_method_is_405(board, database):
    filled(board, database, 1)
    number = message_id(database)
    get = ["/", "/?page=2", f"/messages/{number}/edit", "/static/breadboard.css", "/healthz",
           "/readyz", "/metrics"]
    both = [f"/messages/{number}", f"/messages/{number}/delete"]
    other = ["PUT", "DELETE", "PATCH", "OPTIONS"]
    for paths, allowed, methods in (
        (get, {"GET", "HEAD"}, ["POST", *other]),
        (["/messages"], {"POST"}, ["GET", "HEAD", *other]),
        (both, {"GET", "HEAD", "POST"}, other),
        ([PATH], {"GET"}, ["HEAD", "POST", *other]),
    ):
        for path in paths:
            for method in methods:
                answer = board.request(method, path)
                assert answer.status == 405, (method, path)
                assert set(answer.getheader("Allow").split(", ")) == allowed, (method, path)
                assert is_protected(answer.headers)
    assert stored(database) == [("Ann", "message 1")]


def test_what_is_no_request_is_refused_with_the_same_headers(board):
    close = ("Connection", "close")
    long = "x" * 20000
    for sent, statuses in (
        (b"nonsense\r\n\r\n", [400]),
        (b"GET /\r\n\r\n", [400]),  # HTTP/0.9
        (b"\r\n\r\n\r\n\r\n", [400]),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", [400]),
        (b"GET / HTTX/1.1\r\nHost: localhost\r\n\r\n", [400]),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", [400, 501]),
        (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", [400, 501]),
        (b"GET / /x HTTP/1.1\r\nHost: localhost\r\n\r\n", [400]),
        (b"GET \xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03TLS", [400]),
        (request("GET", "/", HOST, version="HTTP/3.0"), [400, 505]),
        (request("GET", "/", HOST, ("Long", long)), [400, 413, 431]),
        (request("GET", f"/{long}", HOST), [400, 414, 431]),
        (request("GET", "/", HOST, close, *[("A", "b")] * 62), [431]),
        (request("GET", "/", HOST, *[("A", "b")] * 500), [431]),
        (request("GET", "/", HOST, close, *[("A", "b")] * 61), [200]),
    ):
        with Raw(board.address) as raw:
            raw.send(sent)
            answer = raw.answer()
            assert answer.status in statuses, (sent[:60], answer.status)
            assert is_protected(answer) and is_scriptless(answer.text)
            assert raw.rest() == b"", sent[:60]


def test_no_header_hides_behind_a_broken_line(board, database):
    """A line that is no header must not keep those after it, such as Origin, from being read."""
    body = fields()
    for line in " folded", ": no name", "no colon", "\tx: y", "X: y\n", "X: y\n\r", "\n", "X : y":
        with Raw(board.address) as raw:
            raw.send(f"POST /messages HTTP/1.1\r\nHost: localhost\r\n{': '.join(FORM)}\r\n"
                     f"Content-Length: {len(body)}\r\nX: y\r\n{line}\r\n"
                     f"Origin: http://evil.example\r\nConnection: close\r\n\r\n{body}")
            assert raw.answer().status in (400, 403), line
    assert stored(database) == []


def test_a_head_that_others_may_read_otherwise_is_refused(board):
    """Bare LF and blanks: the same answer each time, also to a connection that was used before."""
    for head in ("GET / HTTP/1.1\nHost: localhost\n\n", "GET / HTTP/1.1\r\nHost: localhost\n\r\nX: y\r\n\r\n",
                 "GET / HTTP/1.1\nHost: localhost\r\n\r\n", "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
                 "GET / HTTP/1.1\r\n\r\n\r\nHost: localhost\r\n\r\n", "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
                 "GET / HTTP/1.1\r\nHost\t: localhost\r\n\r\n"):
        for _ in range(5):
            with Raw(board.address) as raw:
                assert raw.ask("GET", "/healthz", HOST).status == 200
                raw.send(head)
                assert raw.answer().status == 400, head
    with Raw(board.address) as raw:
        raw.send("GET /healthz HTTP/1.1\r\nHost:localhost\r\nEmpty:\r\nBlank: \r\n\r\n")
        assert raw.answer().status == 200


def test_requests_one_behind_the_other(board):
    with Raw(board.address) as raw:
        raw.send(request("GET", "/healthz", HOST) + request("HEAD", "/", HOST)
                 + request("GET", "/absent", HOST) + request("GET", "/readyz", HOST))
        assert raw.answer().text == "ok\n"
        assert raw.answer("HEAD").status == 200
        assert raw.answer().status == 404
        answer = raw.answer()
        assert (answer.text, answer["Connection"]) == ("ready\n", "keep-alive")
    with Raw(board.address) as raw:
        assert raw.ask("GET", "/healthz", version="HTTP/1.0")["Connection"] == "close"
        assert raw.rest() == b""


#  ---------------------------------------------------------------- Assets


def assets(board):
    found = re.findall(r'"(/static/[^"?]+)\?v=([^"]+)"', board.get("/").text)
    assert {path.rsplit(".", 1)[1] for path, _ in found} == {"css", "js", "svg"}
    return sorted(set(found))


def test_assets(board):
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
             "svg": "image/svg+xml"}
    for path, version in assets(board):
        answer = board.get(path)
        assert answer.status == 200 and answer.body, path
        assert answer.getheader("Content-Type") == types[path.rsplit(".", 1)[1]]
        assert re.fullmatch(r'"[^"]+"', answer.getheader("ETag"))
        assert is_protected(answer.headers)
        assert answer.getheader("Cache-Control") == "no-cache"
        versioned = board.get(f"{path}?v={version}")
        assert versioned.body == answer.body
        kept = versioned.getheader("Cache-Control")
        assert "immutable" in kept and int(re.search(r"max-age=(\d+)", kept).group(1)) >= 31536000
        for query in "?v=", "?v=old", f"?v={version}x", f"?w={version}", "?":
            answer = board.get(path + query)
            assert (answer.status, answer.getheader("Cache-Control")) == (200, "no-cache"), query


def test_assets_that_did_not_change(board):
    for path, _ in assets(board):
        etag = board.get(path).getheader("ETag")
        zipped = board.get(path, Accept_Encoding="gzip").getheader("ETag")
        for given in etag, zipped, f"W/{etag}", f'"x", {etag}', f'"x",{zipped} , "y"', "*":
            with Raw(board.address) as raw:
                answer = raw.ask("GET", path, HOST, ("If-None-Match", given))
                assert answer.status == 304, given
                assert answer["ETag"] and answer["Cache-Control"] and is_protected(answer)
                assert raw.ask("GET", "/healthz", HOST).text == "ok\n"  # there was no body
        for given in '"x"', etag.strip('"'), etag[:-2] + '"', "", f'"{etag}"', etag.upper() + "x":
            assert board.get(path, If_None_Match=given).status == 200, given


def test_assets_are_zipped_for_those_who_take_it(board):
    for path, _ in assets(board):
        if path.endswith("svg"):
            continue
        plain = board.get(path)
        for accepted, taken in {
            "gzip": True, "GZIP": True, "br, gzip": True, "gzip;q=0.5": True, "*": True,
            "deflate, gzip;q=1.0, *;q=0.5": True, "x, gzip ; q=0.001": True, "*;q=0.1": True,
            "identity": False, "": False, "gzip;q=0": False, "gzip; q=0.000": False,
            "gzip;q=0, *": False, "*;q=0": False, "br": False, "xgzip": False, "gzipx": False,
            "*, gzip;q=0.0": False,
        }.items():
            answer = board.get(path, Accept_Encoding=accepted)
            assert (answer.getheader("Content-Encoding") == "gzip") == taken, accepted
            assert int(answer.getheader("Content-Length")) == len(answer.body)
            assert (gzip.decompress(answer.body) if taken else answer.body) == plain.body
            assert (answer.getheader("ETag") == plain.getheader("ETag")) != taken
            assert "Accept-Encoding" in answer.getheader("Vary")
            assert answer.getheader("Content-Type") == plain.getheader("Content-Type")
        assert len(board.get(path, Accept_Encoding="gzip").body) < len(plain.body)


def test_no_path_leads_out_of_the_assets(start, tmp_path):
    (tmp_path / "secret.css").write_text("secret")
    static = tmp_path / "static"
    static.mkdir()
    (static / "own.css").write_text("own")
    (static / ".hidden.css").write_text("secret")
    (static / "link.d").mkdir()
    (static / "link.d" / "secret.css").write_text("secret")
    board = start(http_static=static)
    assert board.get("/static/own.css").text == "own"
    for name in (
        "../secret.css", "%2e%2e/secret.css", "..%2fsecret.css", "..%5csecret.css", "..\\secret.css",
        "./own.css", ".//own.css", "/own.css", "own.css/", "own.css%00", "own.css%00.js", "own.css.",
        "%6fwn.css", "x/../own.css", "own.css;x", ".hidden.css", "link.d/secret.css", "link.d", ".",
        "..", "../static/own.css", "....//secret.css", "%252e%252e/secret.css", "own.css%20", "*",
        f"../..{tmp_path}/secret.css", f"{tmp_path}/secret.css", "OWN.CSS", "own.css.gz",
        "breadboard.css.gz",
    ):
        for path in f"/static/{name}", f"/x/../static/{name}", f"//static/{name}":
            answer = board.get(path)
            assert answer.status in (400, 404), path
            assert "secret" not in answer.text


#  ---------------------------------------------------------------- Probes and metrics


def test_probes_without_a_database(server, start):
    server.sql("DROP DATABASE IF EXISTS away", database="postgres")
    server.sql("CREATE DATABASE away", database="postgres")
    board = start(database_url=server.url.replace("dbname=board", "dbname=away"))
    probes = ("/healthz", "ok\n"), ("/readyz", "ready\n")
    for path, text in probes:
        answer = board.get(path)
        assert (answer.status, answer.text) == (200, text)
        assert answer.getheader("Cache-Control") == "no-store"
        assert answer.getheader("Content-Type").startswith("text/plain")
    server.sql("ALTER DATABASE away ALLOW_CONNECTIONS false", database="postgres")
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'away'",
               database="postgres")
    wait_for(lambda: board.get("/readyz").status == 503, "a board that is not ready")
    assert board.get("/healthz").status == 200
    assert "breadboard_database_up 0\n" in board.get("/metrics").text
    answer = board.post("/messages", fields("Ann", "kept\n<while away>"))
    assert answer.status == 503 and answer.getheader("Retry-After")
    markup = is_scriptless(answer.text)
    assert markup.by_id("message-form__text").text == "kept\n<while away>"
    (error,) = [element for element in markup.all("p", "form-error") if element.id != "away"]
    assert error["role"] == "alert" and error.text
    server.sql("ALTER DATABASE away ALLOW_CONNECTIONS true", database="postgres")
    wait_for(lambda: board.get("/readyz").status == 200, "a board that is ready again")
    assert board.post("/messages", fields("Ann", "back")).status == 303
    assert ">back</p>" in board.get("/").text
    assert board.stop() == 0
    server.sql("DROP DATABASE away", database="postgres")


def metrics(board):
    """The metrics by name, each of which must be described."""
    answer = board.get("/metrics")
    assert answer.getheader("Content-Type").startswith("text/plain; version=0.0.4")
    values = {}
    for name, value in re.findall(r"^([a-z_]+) (-?\d+)$", answer.text, re.M):
        kind = "counter" if name.endswith("_total") else "gauge"
        assert f"# HELP {name} " in answer.text and f"# TYPE {name} {kind}\n" in answer.text
        values[name.removeprefix("breadboard_")] = int(value)
    assert re.sub(r"(?m)^(#.*|[a-z_]+ -?\d+)\n", "", answer.text) == ""
    return values


def test_metrics_count(start):
    board = start()
    before = metrics(board)
    assert before["database_up"] == 1 and before["connections"] == 0

    def grown():
        return {name: value - before[name] for name, value in metrics(board).items()}

    live = board.client()
    live.send("add message", author="Ann", text="hello")
    live.until("hello")
    live.send("add message", author="Ann", text="")
    assert live.notice() == "invalid"
    assert board.post("/messages", fields()).status == 303
    live.until("Hello")
    with Raw(board.address) as raw:
        raw.send(handshake(("Origin", "null")))
        assert raw.answer().status == 403
    # What is sent is counted a moment later
    exact = {"connections": 1, "connections_total": 1, "connections_refused_total": 1,
             "commands_total": 3, "commands_failed_total": 1}
    wait_for(lambda: exact.items() <= grown().items() and grown()["frames_sent_total"] >= 4,
             f"{exact} and four frames")
    now = grown()
    assert now["batches_total"] in (2, 3) and now["pages_rendered_total"] >= 2
    assert now["bytes_sent_total"] > now["frames_sent_total"] * 50
    board.get("/absent")
    assert grown()["http_requests_total"] == now["http_requests_total"] + 2
    live.close()
    wait_for(lambda: grown()["connections"] == 0, "the connection to be counted out")
    assert grown()["connections_total"] == 1


def foreign_address():
    """An address of this machine that is not loopback, or None; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


@pytest.mark.parametrize("audience, near, far", [
    ("loopback", 200, 403), ("all", 200, 200), ("off", 404, 404)])
def test_who_may_read_metrics(start, audience, near, far):
    board = start(http_metrics=audience, http_listen="0.0.0.0:0")
    with Raw(f"127.0.0.1:{board.port}") as raw:
        assert raw.ask("GET", "/metrics", HOST).status == near
        # A proxy beside the board speaks for somebody else
        for header in ("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1"):
            assert raw.ask("GET", "/metrics", HOST, header).status == far, header
    address = foreign_address()
    if address:
        with Raw(f"{address}:{board.port}") as raw:
            assert raw.ask("GET", "/metrics", HOST).status == far
