"""What a list of messages says, in a form to be compared."""

import html
import re

ARTICLE = re.compile(r'<article class="message" id="message--(\d+)"')
AUTHOR = re.compile(r'<h2 class="message__author"[^>]*>(.*?)</h2>', re.S)
TEXT = re.compile(r'<p class="message__text"[^>]*>(.*?)</p>', re.S)
NEIGHBOUR = re.compile(r'id="messages__(previous|next)-page" name="page" value="(\d+)"')
PLACE = re.compile(r'id="messages__list" data-page="(\d+)" data-pages="(\d+)" data-etag="([0-9a-f]*)"')


def content(number, pages, page_html):
    """What a page says: number, pages, rows, neighbours."""
    texts = [[html.unescape(text) for text in pattern.findall(page_html)] for pattern in (AUTHOR, TEXT)]
    ids = [int(number) for number in ARTICLE.findall(page_html)]
    assert len(ids) == len(texts[0]) == len(texts[1]), page_html
    neighbours = {name: int(page) for name, page in NEIGHBOUR.findall(page_html)}
    return number, pages, tuple(zip(ids, *texts)), neighbours.get("previous"), neighbours.get("next")


def framed(number, pages, rows):
    """A page of rows among its neighbours, as content () has it."""
    return (number, pages, rows, number - 1 if number > 1 else None, number + 1 if number < pages else None)


def served(board, number):
    """A page as HTTP has it: its content, and its etag."""
    text = board.get(f"/?page={number}").text
    place = PLACE.search(text)
    page, pages, etag = place.groups()
    return content(int(page), int(pages), text[place.end():].split("</section>", 1)[0]), etag
