"""The site behind auth_url, asked as the relay asks it, about a visitor without cookies."""

from pushrelay.access.auth_requests import Visitor
from pushrelay.access.auth_site import AuthResult, AuthSite
from pushrelay.access.tokens import Rights
from pushrelay.settings import Settings, without_secrets

from .report import Advice, Report

STRANGER = Visitor(agent="relay-doctor")
ANY = "doctor-any-id"  # no site allows it, unless it allows all


def ask_site(report: Report, settings: Settings) -> None:
    """Whether auth_url answers, and whether it keeps strangers out."""
    if not settings.auth_url:
        return
    found = AuthSite(settings).fetch(STRANGER)
    url = without_secrets(settings.auth_url)
    if found.cause:
        _tell_cause(report, url, found)
    elif isinstance(found.outcome, Rights):
        _tell_rights(report, url, found.outcome)
    else:
        report.ok("auth_url", f"{url} lets nobody register who is not logged in")


def _tell_cause(report: Report, url: str, found: AuthResult) -> None:
    message = getattr(found.outcome, "message", "")
    advice = Advice(f"{found.advice[:1].upper()}{found.advice[1:]}.")
    is_no = getattr(found.outcome, "error", "") == "not_allowed"
    # Where it redirects to the login page, visitors who are logged in may well get an answer.
    (report.warn if is_no else report.fail)("auth_url", f"{url}, asked without cookies: {message}", advice)


def _tell_rights(report: Report, url: str, rights: Rights) -> None:
    if rights.ids.allows(ANY):
        advice = Advice("Have it answer 401 to visitors who are not logged in, or name the ids that all may have.")
        report.warn("auth_url", f"{url} lets anybody register any id, also without cookies", advice)
    elif rights.ids:
        report.ok("auth_url", f"{url} answers, and has ids for visitors who are not logged in as well")
    else:
        report.ok("auth_url", f"{url} answers, without ids for visitors who are not logged in")
