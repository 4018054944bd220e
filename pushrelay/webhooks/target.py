"""One URL that gets events: those of the queue's topic that its filters let through."""

import hashlib

from pushrelay.client.site import Site
from pushrelay.settings import Settings, without_secrets
from pushrelay.settings.values import Hook
from pushrelay.store.events import HOOKS, SENDS, Event


class Target:
    """One URL. `setting` is the name of the setting that holds it, `ca` the setting auth_ca.

    Raises OSError if the file `ca` cannot be read.
    """

    def __init__(self, hook: Hook, setting: str, ca: str):
        self.topic = SENDS if setting == "request_url" else HOOKS
        # In the store a URL has this name, so that no password in it is kept there. Sends outlive a change of the URL.
        digest = hashlib.blake2b(hook.url.encode(), digest_size=8).hexdigest()
        self.reader = "request_url" if self.topic == SENDS else digest
        self.url = hook.url
        self.shown = without_secrets(hook.url)
        self.setting = setting
        self.site = Site(hook.url, setting, ca)
        self._kinds = frozenset(hook.events)
        self._names = frozenset(each for each in hook.names if not each.endswith("*"))
        self._beginnings = tuple(each[:-1] for each in hook.names if each.endswith("*"))

    def wants(self, event: Event) -> bool:
        """Return whether the filters let an event through."""
        if self._kinds and event.kind not in self._kinds:
            return False
        if not self._names and not self._beginnings:
            return True
        return event.name in self._names or event.name.startswith(self._beginnings)


def targets_of(settings: Settings) -> list[Target]:
    """Return the targets in the settings: those of webhook_url in their order, then the one of request_url."""
    targets = [Target(hook, "webhook_url", settings.auth_ca) for hook in settings.webhook_url]
    if settings.request_url:
        targets.append(Target(Hook(settings.request_url), "request_url", settings.auth_ca))
    return targets
