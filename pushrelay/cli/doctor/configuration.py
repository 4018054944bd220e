"""Checks of the settings: the file that holds secrets, and keys and secrets that can be guessed."""

import pathlib
import re
import select
import shlex

from pushrelay.access.exposure import ENOUGH_KEY, ENOUGH_SECRET
from pushrelay.access.guessing import is_guessable, is_trivial
from pushrelay.settings import NAMES, Settings

from .report import Advice, Report

WEAK_SECRET = 16  # bytes; anyone with a token can find a shorter secret by trial and error
WEAK_KEY = 16  # characters
GENERATE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


def settings_found(report: Report, settings: Settings) -> None:
    """Report which settings are used, and check how well they keep secrets."""
    report.ok("settings", f"sound ({settings.file or 'no file, all defaults'})")
    if not hasattr(select, "epoll") or settings.server == "werkzeug":
        why = "as the setting server demands" if hasattr(select, "epoll") else "because this system has no epoll"
        report.warn(
            "server", f"Werkzeug's, {why}: each client needs several threads, so the limit is a few hundred clients"
        )
    for name, key in settings.push_keys:
        _check_key(report, "push_keys", name, key)
    for name, key in settings.metrics_keys:
        _check_key(report, "metrics_keys", name, key)
    for secret in settings.secret:
        _check_secret(report, "secret", secret)
    for secret in settings.webhook_secret:
        _check_secret(report, "webhook_secret", secret)
    if settings.file and _holds_secrets(settings.file) and settings.file.stat().st_mode & 0o004:
        advice = Advice("Let only the relay's user read it:", (f"chmod o-rwx {shlex.quote(str(settings.file))}",))
        report.warn("settings file", f"every user of this machine can read {settings.file}, secrets included", advice)


def _holds_secrets(file: pathlib.Path) -> bool:
    names = "|".join(setting.name for setting in NAMES.values() if setting.secret)
    pattern = rf"^\s*(({names})\s*[=:]\s*\S|(auth_url|request_url|broker)\s*[=:]\s*\S+//.*@)"
    return bool(re.search(pattern, file.read_text("utf-8"), re.MULTILINE | re.IGNORECASE))


def _check_key(report: Report, setting: str, name: str, key: str) -> None:
    advice = Advice(f"Replace the key {name}, in {setting} and where it is used. This makes one:", (GENERATE,))
    if len(key) < WEAK_KEY or is_trivial(key):
        report.fail(setting, f"the key {name} can be guessed: it is short, or a word", advice)
    elif len(key) < ENOUGH_KEY:
        report.warn(setting, f"the key {name} has {len(key)} characters: use at least {ENOUGH_KEY}", advice)
    elif is_guessable(key):
        report.warn(setting, f"the key {name} is made of words, or of a pattern", advice)
    else:
        report.ok(setting, f"the key {name} cannot be guessed")


def _check_secret(report: Report, setting: str, secret: str) -> None:
    size = len(secret.encode())
    where = "PHP signs" if setting == "secret" else "PHP checks the signature"
    advice = Advice(f"Replace it, in the setting {setting} and where {where}. This makes one:", (GENERATE,))
    if size < WEAK_SECRET or is_trivial(secret):
        report.fail(setting, f"{size} bytes, or a word: whoever has something signed can find it by trying", advice)
    elif size < ENOUGH_SECRET:
        report.warn(setting, f"{size} bytes, and HS256 asks for {ENOUGH_SECRET} (RFC 7518)", advice)
    elif is_guessable(secret):
        report.warn(setting, f"{size} bytes, but made of words, or of a pattern", advice)
    else:
        report.ok(setting, f"{size} bytes, enough for HS256")
