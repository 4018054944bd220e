"""The page /status: the facts that it shows before it has asked for /status.json."""

from typing import Any

from pushrelay import __version__
from pushrelay.settings import Settings

from .demo import first_id


def page_facts(settings: Settings, is_local: bool) -> dict[str, Any]:
    """Return what status.html needs. `is_local`: the browser is on this machine."""
    return {"version": __version__, "local": is_local, "base": settings.base_path, "demo_id": first_id(settings)}
