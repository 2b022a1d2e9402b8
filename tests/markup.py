"""HTML as a browser reads it: elements with their attributes and their text."""

import html.parser

VOID = {"br", "hr", "img", "input", "link", "meta"}


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag = tag
        self.attributes = attributes
        self.parent = parent
        self.text = ""

    @property
    def id(self):
        return self.attributes.get("id")

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()

    def __getitem__(self, attribute):
        return self.attributes[attribute]

    def inside(self, other):
        return self.parent is not None and (self.parent is other or self.parent.inside(other))


class _Parser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.elements = []
        self.open = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"an attribute twice in <{tag}>"
        element = Element(tag, attributes, self.open[-1] if self.open else None)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for element in self.open:
            element.text += data


class Markup:
    """A document or a part of one, every element of which must be closed in order."""

    def __init__(self, text):
        parser = _Parser()
        parser.feed(text)
        parser.close()
        assert not parser.open, f"<{parser.open[-1].tag}> is not closed"
        self.elements = parser.elements
        for element in self.elements:
            if element.tag == "textarea":
                element.text = element.text.removeprefix("\n")
        ids = [element.id for element in self.elements if element.id is not None]
        assert len(ids) == len(set(ids)), "an id twice"

    def all(self, tag=None, css=None):
        """The elements of the tag and of the class."""
        return [
            element
            for element in self.elements
            if tag in (None, element.tag) and (css is None or css in element.classes)
        ]

    def one(self, tag=None, css=None):
        (element,) = self.all(tag, css)
        return element

    def by_id(self, name):
        """The element, or None."""
        return next((element for element in self.elements if element.id == name), None)
