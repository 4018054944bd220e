"""The history of a destination for a program that asks for it, read page by page, as fast as the program reads."""

from collections.abc import Iterator

from pushrelay.errors import StoreError
from pushrelay.json_text import quote

from .archive import Archive
from .publication import Kept, Publication, position_of

# Bytes of data that are read at a time. A slow reader costs the server's send-ahead and one page.
PAGE_BYTES = 65536
# Bytes of data in one response. It can be continued; more would keep a store's snapshot and a connection for too long.
MAX_BYTES = 8 << 20


class Listing:
    """The history of one destination after `since` (a position, "acked", or None for everything), the oldest first.

    It has at most `limit` publications and `max_bytes` bytes of data, but at least one publication if there is one.

    `position` is the position of the last publication, kept or not. `recovered` is whether nothing is missing after
    `since`. `more` is whether there are more publications, known once all pages are read: ask again after the last one.
    Creating a listing raises StoreError if the history cannot be read.
    """

    def __init__(self, archive: Archive, destination: str, since: str | None, limit: int | None, max_bytes: int | None):
        self._archive = archive
        self._epoch = archive.epoch  # before anything is read: see Archive.publication()
        self._destination = destination
        after = 0 if since is None else archive.offset_of(destination, since)
        listed, tip, _ = archive.read(destination, after or 0, with_data=False)
        now = archive.clock()
        live = [each.offset for each in listed if each.expires > now]
        surplus = live[: -archive.limits.history_size or len(listed)]
        # The offset after which the next page begins. Publications that seem to have expired are read too, because
        # damage can make them seem so.
        self._read_to = surplus[-1] if surplus else after or 0
        self._last = listed[-1].offset if listed else 0
        self._last_live = live[-1] if live else 0
        self._trimmed = tip.trimmed
        self._left = len(listed) if limit is None else limit
        self._left_bytes = max_bytes
        self.more = False
        self.position = position_of(self._epoch, tip.offset)
        self._is_broken = False  # some were dropped while this was read
        self._is_damaged = False  # some are not what was stored
        self._first = self._next_page(is_first=True)
        is_complete = since is None or (after is not None and archive.complete(listed, tip, after) is not None)
        is_complete = is_complete and archive.epoch == self._epoch
        self.recovered = is_complete and not self._is_damaged and not (self._is_broken and since is not None)

    def pages(self) -> Iterator[list[Publication]]:
        """Yield the publications. If some are dropped or the store goes away, the pages end early, with `more`."""
        page, self._first = self._first, []
        while page:
            yield page
            try:
                page = self._next_page()
            except StoreError:
                break
        self.more = self._read_to < (self._last if self._is_broken else self._last_live)

    @property
    def is_short(self) -> bool:
        """Whether the first page is everything."""
        return self._read_to >= self._last or self._is_over

    def answer(self) -> Iterator[str]:
        """Yield the JSON object that an HTTP client gets, in pieces."""
        begin = f'{{"destination":{quote(self._destination)},"position":{quote(self.position)},'
        begin += f'"recovered":{"true" if self.recovered else "false"},"publications":['
        for page in self.pages():
            yield begin + ",".join(map(_json_of, page))
            begin = ","
        begin = "" if begin == "," else begin
        yield f'{begin}],"more":{"true" if self.more else "false"}}}'

    @property
    def _is_over(self) -> bool:
        return self._left <= 0 or (self._left_bytes is not None and self._left_bytes <= 0)

    def _next_page(self, is_first: bool = False) -> list[Publication]:
        """Continue reading until there is something that has not expired; return an empty page at the end."""
        while self._read_to < self._last and not self._is_over:
            max_bytes = PAGE_BYTES if self._left_bytes is None else min(PAGE_BYTES, self._left_bytes)
            kept, tip, _ = self._archive.read(self._destination, self._read_to, max_bytes)
            self._is_damaged = self._is_damaged or tip.is_damaged
            if tip.trimmed > max(self._trimmed, self._read_to):
                self._is_broken, self._trimmed = True, tip.trimmed
                if not is_first:
                    break
            if page := self._take([each for each in kept if each.offset <= self._last]):
                return page
        return []

    def _take(self, kept: list[Kept]) -> list[Publication]:
        """Return the live ones of the publications that were read, and count them."""
        now = self._archive.clock()
        live = [each for each in kept if each.expires > now][: self._left]
        is_cut = live and len(live) == self._left
        self._read_to = live[-1].offset if is_cut else kept[-1].offset if kept else self._last
        self._left -= len(live)
        if self._left_bytes is not None:
            self._left_bytes -= sum(len(each.text) for each in live)
        return [self._archive.publication(self._destination, each, self._epoch) for each in live]


def _json_of(publication: Publication) -> str:
    return (
        f'{{"id":"{publication.position}","event":{quote(publication.event)},"data":{publication.text},'
        f'"created":{publication.created!r},"expires":{publication.expires!r}}}'
    )
