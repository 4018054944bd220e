"""The site behind the setting request_url: one request to it, and its outcome.

The doctor sends it in the same way as the relay does.
"""

import time
from typing import NamedTuple

from pushrelay.access.visitor import Visitor
from pushrelay.client.signature import HEADER, signature
from pushrelay.client.site import Site, SiteError
from pushrelay.errors import Refused
from pushrelay.settings import Settings, without_secrets

from .php_answer import Outcome, outcome_of, outcome_of_error


class Target(NamedTuple):
    """The site, and the settings of the requests to it. They are replaced as a whole by a reload."""

    settings: Settings
    site: Site | None
    shown: str  # the URL without secrets

    @classmethod
    def of(cls, settings: Settings) -> "Target":
        """Return the target that the settings name. Raises OSError if the file auth_ca cannot be read."""
        url = settings.request_url
        return cls(settings, Site(url, "request_url", settings.auth_ca) if url else None, without_secrets(url))

    def check(self) -> tuple[Settings, Site]:
        """Return the settings and the site. Raises Refused (404) without a site."""
        if self.site is None:
            message = "this relay takes no requests for the site: set request_url to the address of a PHP script"
            raise Refused(404, "no_request_url", message)
        return self.settings, self.site

    def ask(self, event: str, visitor: Visitor) -> Outcome:
        """Send an event, in JSON, and return the outcome. It takes at most request_timeout. Raises Refused: check()."""
        settings, site = self.check()
        body = f'{{"events":[{event}]}}'.encode()
        headers = {
            **visitor.headers(),
            "Content-Type": "application/json",
            HEADER: signature(settings.webhook_secret, body, time.time()),
        }
        try:
            reply = site.post(body, headers, settings.request_timeout, settings.max_answer + 1)
        except SiteError as error:
            return outcome_of_error(error, settings.request_timeout)
        return outcome_of(reply, settings.max_answer)
