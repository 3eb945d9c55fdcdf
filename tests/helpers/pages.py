"""Pages as a browser would find them, by a parser."""

import base64
import hashlib
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """What a browser would find: elements with their attributes and text; it complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, list[str]]] = []
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        texts: list[str] = []
        self.elements.append((tag, dict(attributes), texts))
        if tag not in VOID:
            self.open.append((tag, texts))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, texts in self.open:
            texts.append(data)

    def find(self, tag, **attributes):
        return [
            (found, " ".join("".join(texts).split()))
            for name, found, texts in self.elements
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]

    def texts(self, tag, **attributes):
        return [text for _, text in self.find(tag, **attributes)]

    def policy(self):
        """The page's policy, by kind of what may be loaded."""
        (policy,) = [found["content"] for found, _ in self.find("meta") if "http-equiv" in found]
        return {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}


def assert_self_contained(page: Page) -> None:
    """Checks that a page asks for nothing, and that its policy allows just the style and the script that it has."""
    for name, found, _ in page.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            assert found.get(key, "data:").startswith(("data:image/", "data:", "#")), (name, key)
        assert not [key for key in found if key.startswith("on") or key == "style"]
    allowed = {"'none'"}
    for tag in ("style", "script"):
        for _, found, texts in [element for element in page.elements if element[0] == tag]:
            if "type" not in found:
                allowed.add(hash_of("".join(texts)))
    policy = page.policy()
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert policy["img-src"] == ["data:"]
    assert {*policy["style-src"], *policy["script-src"]} | {"'none'"} == allowed


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
