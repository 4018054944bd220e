"""The reader of the INI file, which takes `[relay]` line by line, so that no line can silently mean something else.

Python's ConfigParser joins lines, reads comments as values, and ignores sections with a similar name. Here a line is
a section, a comment or `name = value`; anything else is an error with the line's number. Lines of other sections
belong to other programs and are ignored.
"""

import difflib
import pathlib
import re
import unicodedata
from typing import NamedTuple

from .values import SettingsError, invisible

MAX_BYTES = 1 << 20  # a settings file has a few KiB; a path such as /dev/zero must not fill the memory
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SECTION = re.compile(r"\[([^\[\]]*)\]\s*(?:[#;].*)?")
# Sections for uWSGI and PasteDeploy. A file may have these and no [relay].
_FOREIGN = re.compile(r"uwsgi|DEFAULT|(app|server|composite|filter|filter-app|pipeline):.*")
_BLANKS = " \t"
# A relay setting in a server's section is usually a mistake: a line added at the end of wsgi.ini belongs to its last
# section. These four are settings of the servers too.
_OF_SERVERS = re.compile(r"uwsgi|server:.*")
_OF_SERVERS_TOO = {"host", "port", "server", "threads"}
# These in any other section are an error if [relay] does not set them, because the relay would be open without them.
_GUARDS = {"secret", "id_cookie", "auth_url", "push_keys", "origins"}


class Line(NamedTuple):
    """A setting as it is in the file."""

    number: int
    name: str  # in lower case
    text: str


class _Wrong(Exception):
    """A line is wrong. The message explains what is wrong with it and what to write instead."""


def read(file: pathlib.Path, names: set[str], named: bool) -> list[Line] | None:
    """Return the lines of [relay]; None if the file does not exist. Raises SettingsError.

    `names` are the settings that exist. If `named`, somebody chose this file, so it must exist and have the section.
    """
    data = _bytes_of(file, named)
    if data is None:
        return None
    reader = _Reader(names)
    try:
        reader.read(_text_of(data))
        if reader.has_content:
            reader.check_sections(named)
    except _Wrong as wrong:
        where = f", line {reader.number}" if reader.number else ""
        raise SettingsError(f"{file}{where}: {wrong}") from None
    return reader.found


def _bytes_of(file: pathlib.Path, named: bool) -> bytes | None:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        if not named:
            return None
        reason = error.strerror
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError:  # a NUL in the name
        reason = "no file can have this name"
    else:
        if len(data) <= MAX_BYTES:
            return data
        reason = f"it has more than {MAX_BYTES} bytes, so it is not a settings file"
    raise SettingsError(f"{file}: cannot be read ({reason}); --config names the file with the settings")


def _text_of(data: bytes) -> str:
    if data.startswith(_UTF_16) or b"\0" in data:
        raise _Wrong("the file is not UTF-8 text (it looks like UTF-16); save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = len(re.split(rb"\r\n|\r|\n", data[: error.start]))
        raise _Wrong(f"line {number} is not UTF-8 text; save the file as UTF-8") from None


class _Reader:
    """A reader for the text of one file."""

    def __init__(self, names: set[str]):
        self.number = 0  # of the line that is being read; 0 if an error is about the whole file
        self.found: list[Line] = []
        self._names = names
        self._sections: dict[str, int] = {}  # the sections, and the lines that begin them
        self._section: str | None = None
        self._first: dict[str, int] = {}  # the settings that were read, and the number of their line
        self._astray: list[tuple[int, str, str]] = []  # line, section and name of guards in other programs' sections
        self.has_content = False  # anything other than blank lines and comments

    def read(self, text: str) -> None:
        """Read the text of the file into `found`. Raises _Wrong."""
        for self.number, raw in enumerate(re.split(r"\r\n|\r|\n", text), 1):
            line = raw.strip(_BLANKS)
            if not line.strip() or line[0] in "#;":
                continue
            self.has_content = True
            if _plain(line).startswith("[") and self._begins_section(line):
                continue
            if self._section is None:
                _check_visible(line)
                raise _Wrong("there is no section yet; write [relay] on a line of its own above the settings")
            if self._section == "relay":
                self._take(line, is_indented=raw[0] in _BLANKS)
            else:
                self._look_at_other(self._section, _name_of(line))
        self.number = 0

    def check_sections(self, named: bool) -> None:
        """Raise _Wrong if the file has no settings for the relay, or its guards only in other sections."""
        if "relay" in self._sections:
            for number, section, name in self._astray:
                if name not in self._first:
                    self.number = number
                    raise _Wrong(_not_read(section, name))
            return
        strange = [each for each in self._sections if not _FOREIGN.fullmatch(each)]
        if near := [each for each in strange if "relay" in _plain(each)]:
            raise _Wrong(f"the section [{near[0]}] is not read (did you mean [relay]?); write it as [relay]")
        if named or strange or self._astray:
            meant = f" (did you mean [relay] by [{strange[0]}]?)" if strange else ""
            raise _Wrong(
                f"the file has no section [relay]{meant}; write [relay] on a line of its own above the settings"
            )

    def _begins_section(self, line: str) -> bool:
        """Enter the section that this line begins. Returns False if it is a line of another program's section."""
        match = _SECTION.fullmatch(line)
        is_mine = self._section in (None, "relay") or "relay" in _plain(line)
        if not match and not is_mine:
            return False
        if not match or "relay" in _plain(line):
            _check_visible(line)
        if not match:
            raise _Wrong("write a section as [relay], on a line of its own")
        name = match[1]
        if name != "relay" and (_plain(name) == "relay" or _is_near(name)):
            raise _Wrong(f"the section [{name}] is not read (did you mean [relay]?); write it as [relay]")
        if name == "relay" and name in self._sections:
            raise _Wrong(f"[relay] already exists in line {self._sections[name]}; put all settings into one section")
        self._sections.setdefault(name, self.number)
        self._section = name
        return True

    def _take(self, line: str, is_indented: bool) -> None:
        """Add a line of [relay] to `found`. Raises _Wrong if it is not a setting."""
        _check_visible(line)
        name = re.split("[=:]", line, maxsplit=1)[0]
        delimiter, text = line[len(name) : len(name) + 1], line[len(name) + 1 :]
        name = name.strip(_BLANKS).lower()
        if is_indented and name not in self._names:
            raise _Wrong("the line is indented, so it seems to continue the one above; write each setting on one line")
        first, *more = name.split() or [""]
        if not delimiter or not name or (more and first in self._names):
            example = first if first in self._names else "name"
            raise _Wrong(f"this is not a setting; write {example} = value, or # in front of a comment")
        text = text.strip(_BLANKS)
        if text[:1] in ("=", ">"):
            raise _Wrong(f"write {name if name in self._names else 'name'} = value, with a single =")
        if name in self._first:
            raise _Wrong(f"{name} already exists in line {self._first[name]}; keep one of the two lines")
        if name in self._names:  # load() refuses other names
            self._first[name] = self.number
        self.found.append(Line(self.number, name, text))

    def _look_at_other(self, section: str, name: str) -> None:
        """Raise _Wrong for a line of another program's section that is meant for the relay."""
        is_default = section.upper() == "DEFAULT"  # other programs apply its lines to all sections
        if name in self._names and (is_default or (_OF_SERVERS.fullmatch(section) and name not in _OF_SERVERS_TOO)):
            raise _Wrong(_not_read(section, name))
        if name in _GUARDS:
            self._astray.append((self.number, section, name))


def _name_of(line: str) -> str:
    return re.split("[=:]", line, maxsplit=1)[0].strip().lower()


def _not_read(section: str, name: str) -> str:
    return f"{name} in [{section}] is not read; write it below [relay]"


def _check_visible(line: str) -> None:
    if found := invisible(line):
        raise _Wrong(f"the line has an invisible character ({found}); delete the line and type it again")


def _plain(text: str) -> str:
    """Return a name without differences that readers overlook: case, width, spaces and invisible characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(each for each in folded if not each.isspace() and not invisible(each))


def _is_near(name: str) -> bool:
    return bool(difflib.get_close_matches(_plain(name), ["relay"], 1, 0.7))
