"""HTML taken apart by the standard library's parser, which is not what wrote it."""

from __future__ import annotations

from html.parser import HTMLParser


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def elements_of(html: str) -> list[str]:
    """Return the names of all elements, in order."""
    return _read(html).elements


def attributes_of(html: str) -> list[tuple[str, str | None]]:
    """Return all attributes of all elements, in order."""
    return _read(html).attributes


def texts_of(html: str) -> list[str]:
    """Return all texts, in order."""
    return _read(html).texts


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader
