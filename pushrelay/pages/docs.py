"""The documentation in the browser: README.md, CHANGELOG.md and docs/*.md, rendered as HTML."""

import pathlib
import posixpath
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from pushrelay.places import HOME

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# The list beside each page: headings, and the files under each. A test checks that no file is missing.
CONTENTS = {
    "Start": ("README.md", "docs/glossary.md", "CHANGELOG.md"),
    "Push and listen": (
        "docs/http-api.md",
        "docs/socket-api.md",
        "docs/javascript.md",
        "docs/php.md",
        "docs/spool.md",
        "docs/outbox.md",
        "docs/presence.md",
        "docs/requests.md",
        "docs/webhooks.md",
    ),
    "Operate": (
        "docs/settings.md",
        "docs/doctor.md",
        "docs/systemd.md",
        "docs/operations.md",
        "docs/security.md",
        "docs/logging.md",
        "docs/status.md",
        "docs/metrics.md",
    ),
    "Behind a web server": ("docs/nginx.md", "docs/apache.md", "docs/docker.md", "docs/containers.md"),
    "Several relays": ("docs/scaling.md", "docs/redis.md", "docs/load-balancing.md"),
    "Move to the relay": (
        "docs/from-pusher.md",
        "docs/from-centrifugo.md",
        "docs/from-long-polling.md",
        "docs/from-node.md",
    ),
    "Change the relay": ("docs/extending.md", "docs/design.md", "docs/engine.md"),
}
NAMES = {
    file: "" if file == "README.md" else pathlib.Path(file).stem.lower() for each in CONTENTS.values() for file in each
}
PICTURES = "docs/pictures"  # the folder of the pictures that pages show; others are left out


class Section(NamedTuple):
    """A heading of the second level."""

    anchor: str
    title: str


class Page(NamedTuple):
    """A rendered file."""

    name: str  # the last part of its address; empty for README.md
    title: str  # its first heading
    html: str  # has no HTML of the file's own
    sections: list[Section]


class Docs:
    """Renders the files of the relay's folder, each once and again when it changes. Any thread may call it."""

    def __init__(self, home: pathlib.Path):
        self._files = {name: file for file, name in NAMES.items() if (home / file).is_file()}
        self._home = home
        self._pages: dict[str, tuple[float, Page]] = {}  # by name, with the file's modification time

    def page(self, name: str) -> Page | None:
        """Return the page of this name; None if no page has it. README.md has the empty name."""
        if name not in self._files:
            return None
        path = self._home / self._files[name]
        changed = path.stat().st_mtime
        known = self._pages.get(name)
        if known is None or known[0] != changed:
            known = self._pages[name] = changed, rendered(path.read_text("utf-8"), self._files[name])
        return known[1]

    def contents(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        """Return the list of pages: for each heading the name, the address and the title of each page."""
        return [
            (heading, [self._entry(file) for file in files if NAMES[file] in self._files])
            for heading, files in CONTENTS.items()
        ]

    def _entry(self, file: str) -> tuple[str, str, str]:
        with (self._home / file).open(encoding="utf-8") as lines:
            return NAMES[file], _address(file), next(lines).strip("# \n")


def rendered(text: str, file: str) -> Page:
    """Return the page of a file whose path is relative to the relay's folder, such as docs/php.md."""
    parser = _parser()
    tokens = parser.parse(text)
    slugs: dict[str, int] = {}
    title, sections = "", []
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            words = _words(tokens[number + 1].children or [])
            token.attrSet("id", slug := _slug(words, slugs))
            if token.tag == "h1":
                title = title or words
            elif token.tag == "h2":
                sections.append(Section(slug, words))
        elif alignment := str(token.attrs.pop("style", "")):
            token.attrSet("class", alignment.removeprefix("text-align:"))  # the CSP forbids styles in the text
        elif token.type == "inline":
            token.children = list(_served(token.children or [], posixpath.dirname(file)))
    shown = list(_without_empty_headers(token for token in tokens if token.type != "html_block"))
    html = str(parser.renderer.render(shown, parser.options, {}))
    return Page(NAMES.get(file, ""), title, html, sections)


def _words(tokens: "Iterable[Token]") -> str:
    return "".join(token.content for token in tokens if token.type in ("text", "code_inline", "softbreak"))


def _slug(words: str, known: dict[str, int]) -> str:
    """Return a heading's anchor, formed as GitHub does. `known` has the number of headings for each anchor so far."""
    slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
    count = known.get(slug, 0)
    known[slug] = count + 1
    return f"{slug}-{count}" if count else slug


def _served(tokens: "list[Token]", folder: str) -> "Iterator[Token]":
    """Yield a paragraph's tokens. A link to a file that is not served becomes text, and so does HTML."""
    open_links: list[bool] = []  # whether each is kept
    for token in tokens:
        if token.type == "link_open":
            address = _link(str(token.attrGet("href")), folder)
            token.attrSet("href", address)
            open_links.append(bool(address))
        elif token.type == "image":
            source = posixpath.normpath(posixpath.join(folder, str(token.attrGet("src"))))
            if posixpath.dirname(source) != PICTURES:
                continue
            token.attrSet("src", source.removeprefix("docs/"))
            for name, pixels in _size_of_picture(HOME / source).items():
                token.attrSet(name, str(pixels))  # the browser then leaves room for it
        elif token.type == "html_inline":
            token.type = "text"
        if token.type == "link_close" and not open_links.pop() or token.type == "link_open" and not open_links[-1]:
            continue
        yield token


def _size_of_picture(file: pathlib.Path) -> dict[str, int]:
    """Return the width and height of a WebP file with lossy compression; empty for another file."""
    try:
        with file.open("rb") as picture:
            head = picture.read(30)
    except OSError:
        return {}
    if head[8:16] == b"WEBPVP8X":  # with more than the picture, such as a color profile: less by one, three bytes each
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif head[8:16] == b"WEBPVP8 ":  # 14 bits of two bytes each
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return {}
    return {"width": width, "height": height}


def _link(href: str, folder: str) -> str:
    """Return the address of a link on the page; empty if it leads to a file that is not served."""
    path, _, anchor = href.partition("#")
    if not path or ":" in path:
        return href
    file = posixpath.normpath(posixpath.join(folder, path))
    return "" if file not in NAMES else _address(file) + (f"#{anchor}" if anchor else "")


def _address(file: str) -> str:
    return NAMES[file] or "./"


def _without_empty_headers(tokens: "Iterable[Token]") -> "Iterator[Token]":
    """Yield tokens, without the heads of tables whose header is empty: Markdown has no tables without a head."""
    head: list[Token] | None = None
    for token in tokens:
        if token.type == "thead_open":
            head = []
        if head is None:
            yield token
            continue
        head.append(token)
        if token.type == "thead_close":
            if any(each.content for each in head):
                yield from _with_cells(head)
            head = None


def _with_cells(head: "list[Token]") -> "Iterator[Token]":
    """Yield the tokens of a table's head. A header without words is an ordinary cell."""
    for number, token in enumerate(head):
        beside = head[number + 1 if token.nesting > 0 else number - 1 : None]
        if token.tag == "th" and not beside[0].content:
            token.tag = "td"
        yield token


@cache
def _parser() -> "MarkdownIt":
    """Return a parser that recognizes HTML, so that it can be left out, and renders tables and code that scroll."""
    from markdown_it import MarkdownIt  # here, because it takes 5 MiB of memory, which most relays never need
    from markdown_it.renderer import RendererHTML

    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("table_open", lambda *_: f'<div class="scroll" {_reachable("Table")}>\n<table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    plain = RendererHTML()
    parser.add_render_rule("fence", lambda _, *code: plain.fence(*code).replace("<pre", _CODE, 1))
    parser.add_render_rule("code_block", lambda _, *code: plain.code_block(*code).replace("<pre", _CODE, 1))
    return parser


def _reachable(label: str) -> str:
    """Return the attributes of a box that the keyboard scrolls. docs.js removes them while its content fits."""
    return f'tabindex="0" role="group" aria-label="{label}"'


_CODE = f"<pre {_reachable('Code')}"
