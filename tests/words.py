"""Count the turns of phrase that make prose hard to read: tests/words.py [FILE or FOLDER ...]

Prose is comments, docstrings, messages, the names of tests, Markdown, templates, and the comments of other languages.
Each turn has a bound per 1,000 words, which is how often well-written projects of this kind use it. The script prints
every occurrence with its file and line, and exits with 1 if a turn is above its bound.
"""

import ast
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
IGNORED = {"node_modules", "__pycache__"}  # and whatever begins with a dot, except .ci


class Passage(NamedTuple):
    """A paragraph of prose, without its line breaks and code."""

    file: pathlib.Path
    line: int
    text: str


class Turn(NamedTuple):
    """One turn of phrase, and its bound per 1,000 words."""

    name: str
    bound: float
    found_in: Callable[[str], Iterable[re.Match[str]]]


def words(pattern: str) -> Callable[[str], Iterable[re.Match[str]]]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE).finditer


# After these words, "where" is about a place, or asks for one.
PLACE = re.compile(
    r"\b(folder|directory|place|line|path|file|address|page|point|position|module|machine|port|URL|process|section"
    r"|from|to|of|or|and|is|knows?|knew|sees?|finds?|found|shows?|prints?|asks?|checks?|decides?|remembers?|just)s? $"
)


def conditional_where(text: str) -> Iterator[re.Match[str]]:
    for found in re.finditer(r"\bwhere\b", text, re.IGNORECASE):
        if found[0] != "WHERE" and not PLACE.search(text[: found.start()]):
            yield found


def riddles(text: str) -> Iterator[re.Match[str]]:
    for found in re.finditer(r"(?:^|(?<=[.!?:] ))(?:Who|What|Where)\b[^.!?:]*[.!?:]?", text):
        if not found[0].endswith("?"):
            yield found


TURNS = [
    Turn("where, for if or when", 0.15, conditional_where),
    Turn("is told, says", 0.3, words("(?:is|are|was|were|be|been|being) (?:told|said)|says")),
    Turn("so many, so long", 0, words("so (?:many|long|much|few)")),
    Turn("anew, meanwhile, all the same, for ever", 0, words("anew|meanwhile|all the same|for ever")),
    Turn("is to, is none, is no", 0.7, words("(?:is|are|was|were) (?:to|none|no(?! longer))")),
    Turn("a sentence that begins with Who, What or Where", 0, riddles),
]
# Phrases that a turn has by chance, or that quote somebody else.
ALLOWED: tuple[str, ...] = ()


def passages(file: pathlib.Path) -> Iterator[Passage]:
    text = file.read_text("utf-8")
    readers = {
        ".py": of_python,
        ".md": of_markdown,
        ".html": of_template,
        ".php": of_c_like,
        ".js": of_c_like,
        ".c": of_c_like,
        ".css": of_c_like,
    }
    for line, passage in readers.get(file.suffix, of_hash_comments)(text):
        yield Passage(file, line, plain(passage))


def plain(text: str) -> str:
    """Return a passage without code, link targets and markup, on one line."""
    text = re.sub(r"``.*?``|`[^`]*`", "CODE", text, flags=re.DOTALL)
    return " ".join(re.sub(r"\]\([^)]*\)|\bhttps?://\S+|[*_#>]+", " ", text).split())


def paragraphs(line: int, text: str) -> Iterator[tuple[int, str]]:
    """Split at empty lines, list items and table cells."""
    block: list[str] = []
    start = line
    for number, each in enumerate([*text.split("\n"), ""], line):
        if not each.strip() or re.match(r"\s*([-*|]|\d+\.) ?", each):
            if block:
                yield start, "\n".join(block)
            block = []
        if each.lstrip().startswith("|"):
            yield from ((number, cell) for cell in re.split(r"(?<!\\)\|", each) if cell.strip())
        elif each.strip():
            start = start if block else number
            block.append(re.sub(r"^\s*([-*]|\d+\.) ", "", each))


def of_python(text: str) -> Iterator[tuple[int, str]]:
    yield from joined(
        (token.start[0], token.start[1], token.string.lstrip("#").strip())
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not re.match(r"#!|# (noqa|type:)", token.string)
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.removeprefix("test_").replace("_", " ")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            yield from paragraphs(node.lineno, str(node.value.value))
            node.value.value = ""
        elif isinstance(node, ast.JoinedStr):
            parts = []
            for part in node.values:
                parts.append(str(part.value) if isinstance(part, ast.Constant) else "CODE")
                if isinstance(part, ast.Constant):
                    part.value = ""  # so that it is not counted again
            yield from messages(node.lineno, "".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from messages(node.lineno, node.value)


def messages(line: int, text: str) -> Iterator[tuple[int, str]]:
    """Yield a string if it reads as prose, and not as code or data."""
    is_code = re.search(r"[{};]\n|\b(SELECT|UPDATE|function)\b", text)
    if len(re.findall(r"(?:^| )[a-z]+(?= )", text)) >= 3 and not is_code:
        yield from paragraphs(line, text)


def joined(comments: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, str]]:
    """Join the comments of successive lines that begin in the same column."""
    block: list[str] = []
    start = last = indent = 0
    for line, column, text in comments:
        if block and (line, column) == (last + 1, indent):
            block.append(text)
        else:
            if block:
                yield from paragraphs(start, "\n".join(block))
            start, indent, block = line, column, [text]
        last = line
    if block:
        yield from paragraphs(start, "\n".join(block))


def of_markdown(text: str) -> Iterator[tuple[int, str]]:
    is_code = False
    lines = []
    for each in text.split("\n"):
        fence = each.lstrip().startswith("```")
        is_code ^= fence
        lines.append("" if is_code or fence or each.startswith(("    ", "\t")) else each)
    yield from paragraphs(1, "\n".join(lines))


def of_template(text: str) -> Iterator[tuple[int, str]]:
    def lines_of(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n") or " "

    text = re.sub(r"<(script|style)\b.*?</\1>|{%.*?%}|{{.*?}}|<[^>]*>", lines_of, text, flags=re.DOTALL)
    yield from paragraphs(1, text)


_TOKENS = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"""
    r"|(?P<block>/\*.*?\*/)|(?P<line>(?<!:)//[^\n]*)",
    re.DOTALL,
)


def of_c_like(text: str) -> Iterator[tuple[int, str]]:
    singles = []
    for found in _TOKENS.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["block"]:
            yield from paragraphs(line, re.sub(r"^\s*(/\*+|\*+/|\* ?)|\*/$", "", found[0], flags=re.MULTILINE))
        elif found["line"]:
            singles.append((line, found.start() - text.rfind("\n", 0, found.start()), found[0].lstrip("/ ")))
    yield from joined(singles)


def of_hash_comments(text: str) -> Iterator[tuple[int, str]]:
    found = ((number, re.search(r"(?:^|\s)#+ (.*)", line)) for number, line in enumerate(text.split("\n"), 1))
    yield from joined((number, match.start(), match[1]) for number, match in found if match)


QUOTING = {"words.py", "test_words.py", "LICENSE"}  # these contain the turns themselves, or a text of others
PROSE = {".py", ".md", ".html", ".php", ".js", ".c", ".css", ".ini", ".conf", ".service", ".socket", ".toml", ""}


def files(starts: Iterable[pathlib.Path]) -> Iterator[pathlib.Path]:
    """Yield the files with prose, of these files and folders."""
    for start in starts:
        if start.is_dir():
            yield from files(each for each in sorted(start.iterdir()) if each.name == ".ci" or not is_ignored(each))
        elif start.suffix in PROSE and start.name not in QUOTING:
            yield start


def is_ignored(path: pathlib.Path) -> bool:
    return path.name in IGNORED or path.name.startswith(".")


class Count:
    """The number of words in some passages, and where each turn occurs in them."""

    def __init__(self, prose: Iterable[Passage]):
        self.words = 0
        self.found: dict[str, list[str]] = {turn.name: [] for turn in TURNS}
        for passage in prose:
            self.words += len(re.findall(r"[A-Za-z][\w'-]*", passage.text))
            for turn in TURNS:
                found = [each for each in turn.found_in(passage.text) if not is_allowed(passage.text, each)]
                self.found[turn.name] += [shown(passage, each) for each in found]

    def frequency(self, turn: Turn) -> float:
        return 1000 * len(self.found[turn.name]) / max(self.words, 1)

    def above_bounds(self) -> list[Turn]:
        return [turn for turn in TURNS if self.frequency(turn) > turn.bound]


def is_allowed(text: str, found: re.Match[str]) -> bool:
    around = text[max(found.start() - 60, 0) : found.end() + 60]
    return any(phrase in around for phrase in ALLOWED)


def shown(passage: Passage, found: re.Match[str]) -> str:
    start = max(found.start() - 40, 0)
    return f"{passage.file.relative_to(ROOT)}:{passage.line}: … {passage.text[start : found.start() + 60]} …"


def count_of(starts: Iterable[pathlib.Path]) -> Count:
    return Count(passage for file in files(starts) for passage in passages(file))


def main(arguments: list[str]) -> int:
    count = count_of([pathlib.Path(each).resolve() for each in arguments] or [ROOT])
    for turn in TURNS:
        found = count.found[turn.name]
        print(f"\n{turn.name}: {len(found)}, {count.frequency(turn):.2f} per 1,000 words (at most {turn.bound:g})")
        print("\n".join(f"  {each}" for each in found))
    print(f"\n{count.words} words")
    return 1 if count.above_bounds() else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
