"""Read the pages of the built documentation."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """One page.

    Attributes:
        text: all text, including code.
        prose: the text outside code.
        anchors: the targets of links on this page.
        links: the targets of this page's links.
    """

    def __init__(self, path):
        super().__init__()
        self.text = self.prose = ""
        self.anchors, self.links = set(), []
        self._open = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.anchors |= {named[key] for key in ("id", "name") if named.get(key)}
        if tag == "a" and named.get("href"):
            self.links.append(named["href"])
        if tag in ("script", "style", "code", "pre"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self._open):
            self.text += data
            self.prose += "" if self._open else data
