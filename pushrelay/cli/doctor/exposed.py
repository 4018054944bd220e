"""The checks of what strangers can do through the public address, and how many visitors the relay can take."""

import contextlib
import shlex
from urllib.parse import urljoin, urlsplit

from pushrelay.client.errors import ClientError

from . import proxies
from .entrance import Entrance
from .hops import opened, some_id
from .proxies import APACHE
from .report import Advice
from .verdicts import is_of_relay


class Exposure(Entrance):
    """The checks that follow those of the transports. Some raise Stop."""

    def site(self) -> None:
        """Check that the site's pages are not https while the address is http, which browsers would block."""
        address = self._dialer.address
        if address.scheme != "http":
            return
        with contextlib.suppress(ClientError, ValueError):
            reply = self._dialer.at("/").ask("GET", "")
            target = urlsplit(urljoin(address.origin, reply.headers.get("Location", "")))
            if 300 <= reply.status < 400 and target.scheme == "https":
                host = target.hostname or address.host
                url = address._replace(scheme="https", host=host, port=target.port or 443).url
                found = (
                    f"the site redirects to https://{target.netloc}, so its pages are https, and browsers do not let "
                    f"them connect to {address.url}"
                )
                command = shlex.join(["python", "relay.py", "doctor", url])
                self._report.warn("https", found, Advice("Examine that address:", (command,)))

    def strangers(self) -> None:
        """Check what a client without token and cookie may register."""
        try:
            with opened(self._dialer, "polling", self._headers) as client:
                answer = client.call("register", {"id": some_id()})
        except ClientError:
            return  # the same worked above, so this check proves nothing
        if answer.get("ok") is not True:
            self._report.ok("registering", f"a stranger's is refused ({answer.get('error')})")
            return
        found = "anybody can register any id here, and read what is pushed to it: a stranger just did"
        advice = Advice(
            "Set secret, id_cookie or auth_url in [relay] (docs/socket-api.md, Registration rights), or choose ids "
            "that nobody can guess."
        )
        self._report.warn("registering", found, advice)

    def private(self) -> None:
        """Check that strangers cannot push. The requests have no body, so nothing is pushed."""
        replies = {rest: self._ask("POST", rest) for rest in ("push", "")}
        answered = [rest for rest, reply in replies.items() if is_of_relay(reply)]
        if not answered:
            status = replies["push"].status
            self._report.ok("/push", f"closed to the outside ({status}, not by the relay)")
            return
        reply = replies[answered[0]]
        advice = proxies.closing(self._way, "" in answered)
        url = self._dialer.address.url + answered[0]
        if reply.status not in (401, 403):
            advice = [*advice, *proxies.forwarding_addresses(self._way)]
            found = f"anyone can push at {url}, because the relay mistakes strangers for programs on its own machine"
        elif self._relay.settings.push_keys:
            self._report.warn("/push", f"{url} can be reached and asks for a key; if only PHP here pushes:", *advice)
            return
        else:
            found = f"the proxy forwards {url} to the relay, which refuses it; nobody outside needs this path"
        self._report.stop("/push", found, *advice)

    def addresses(self) -> None:
        """Check that the relay knows the addresses of clients, so that it can limit the clients of one address."""
        trusted, arrived = self._relay.settings.trusted_proxies, self._arrived
        peer, forwarded = arrived.get("peer") or "127.0.0.1", arrived.get("forwarded")
        is_known = arrived.get("same") is True
        if self._way.relay.unix:
            self._report.ok("addresses", "the proxy connects by the Unix socket, so clients are not counted by address")
        elif trusted and is_known and not forwarded:
            found = f"the proxy at {peer} sends no X-Forwarded-For, so all clients count as one address"
            self._report.warn("addresses", found, *proxies.forwarding_addresses(self._way))
        elif trusted and is_known and not arrived.get("trusted"):
            found = f"the proxy is {peer}, which trusted_proxies does not name, so all clients count as one address"
            self._report.warn("addresses", found, self._trusting(peer))
        elif trusted:
            self._report.ok("addresses", "X-Forwarded-For is believed (trusted_proxies)")
        else:
            found = "all clients have the proxy's address, so max_per_address limits nobody"
            self._report.warn("addresses", found, self._trusting(peer if is_known else "127.0.0.1, ::1"))

    def _trusting(self, peer: str) -> Advice:
        named = "127.0.0.1, ::1" if peer in ("127.0.0.1", "::1") else peer
        before = [str(each).removesuffix("/32").removesuffix("/128") for each in self._relay.settings.trusted_proxies]
        line = f"trusted_proxies = {', '.join([*before, named])}"
        return Advice(f"In [relay], if the proxy sets X-Forwarded-For; then {self._relay.restart}:", (line,))

    def workers(self) -> None:
        """Check that Apache has a worker for every client."""
        if self._way.proxy in (APACHE, "") and (found := self._workers()):
            found.report(self._report, self._connected())
