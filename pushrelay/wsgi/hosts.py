"""Facts about the server that imported the relay: uWSGI, gunicorn, waitress, or another.

Servers reveal little about themselves, so some facts are read from their internals.
"""

import atexit
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from pushrelay.settings import Settings, SettingsError

ONE_PROCESS = (
    "the relay is one process, which has all its clients, and this server would start several: "
    "give it one worker process and more threads (uWSGI: processes = 1; gunicorn: --workers 1, no WEB_CONCURRENCY)"
)
HIDES_PROXIES = (
    "waitress removes the headers by which the relay recognizes requests that came through a proxy, so anybody could "
    "push: start it with --no-clear-untrusted-proxy-headers, or clear_untrusted_proxy_headers = no in its section"
)


def check_processes() -> None:
    """Raise SettingsError if the server that imports the relay visibly is about to start several processes."""
    try:
        import uwsgi
    except ImportError:
        processes = gunicorn_setting("workers", 1)
    else:
        processes = uwsgi.numproc
    if processes > 1:
        raise SettingsError(ONE_PROCESS)


def refusal(environ: Mapping[str, Any]) -> str | None:
    """Return why the relay must not serve in this server as configured, as far as a request shows; None if it may."""
    if environ.get("wsgi.multiprocess"):
        return ONE_PROCESS
    waitress = waitress_settings(environ)
    if waitress is not None and waitress.clear_untrusted_proxy_headers:
        return HIDES_PROXIES
    return None


def check_paste(settings: Settings, global_conf: Mapping[str, str], local_conf: Mapping[str, str]) -> None:
    """Check what PasteDeploy read from an INI file. Raises SettingsError.

    The relay takes its settings from [relay] alone. That section must be in the file that PasteDeploy read.
    """
    if local_conf:
        raise SettingsError(f"[app:main]: {', '.join(local_conf)}: the relay's settings belong in [relay]")
    read = global_conf["__file__"]
    if settings.file is None or not settings.file.samefile(read):
        raise SettingsError(
            f"the settings of the relay come from {settings.file or 'no file'}, and not from {read}: "
            f"set RELAY_CONFIG={read} in the environment"
        )


def at_end(end: Callable[[], None]) -> None:
    """Call `end()` when the process ends; in a gunicorn worker at its SIGTERM, on a thread of its own.

    After that signal the worker continues for a while, with its current requests and persistent connections. The next
    worker, which a reload has already started, waits for the store until `end` has closed it.
    """
    atexit.register(end)
    handler = signal.getsignal(signal.SIGTERM)
    is_worker = type(getattr(handler, "__self__", None)).__module__.startswith("gunicorn.workers.")
    if not callable(handler) or not is_worker or threading.current_thread() is not threading.main_thread():
        return

    def end_soon(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=end, name="relay-end", daemon=True).start()
        handler(number, frame)

    signal.signal(signal.SIGTERM, end_soon)


def waitress_settings(environ: Mapping[str, Any]) -> Any:
    """Return waitress's own settings; None if it is not the server."""
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    return getattr(channel, "adj", None)


_gunicorn: Any = None  # gunicorn's settings, once found


def gunicorn_setting(name: str, default: Any) -> Any:
    """Return a gunicorn setting; `default` if gunicorn is not the server.

    gunicorn does not pass its settings to the app. So the first call looks for them in the frames of the callers, and
    must come while gunicorn imports the relay. The only other way is a hook in gunicorn's own configuration.
    """
    global _gunicorn
    frame = sys._getframe() if _gunicorn is None and "gunicorn.app.base" in sys.modules else None
    while frame is not None and _gunicorn is None:
        settings = getattr(frame.f_locals.get("self"), "cfg", None)
        if type(settings).__module__ == "gunicorn.config":
            _gunicorn = settings
        frame = frame.f_back
    return getattr(_gunicorn, name, default)
