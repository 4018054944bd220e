"""The checks of auth_url and request_url: the site gets what the relay sends, for a visitor without cookies."""

from pushrelay.access.auth_site import AuthResult, AuthSite
from pushrelay.access.tokens import Rights
from pushrelay.access.visitor import Visitor
from pushrelay.errors import Refused
from pushrelay.requests.asked import Asked, Page, request_event
from pushrelay.requests.target import Target
from pushrelay.settings import Settings, without_secrets

from .report import Advice, Report

STRANGER = Visitor(agent="relay-doctor")
ANY = "doctor-any-id"  # a site allows it only if it allows every id
REQUEST = "relay-doctor"  # the name of a request that no site has


def ask_site(report: Report, settings: Settings) -> None:
    """Check that auth_url answers, and that it does not let strangers register."""
    if not settings.auth_url:
        return
    found = AuthSite(settings).fetch(STRANGER)
    url = without_secrets(settings.auth_url)
    if found.cause:
        _report_problem(report, url, found)
    elif isinstance(found.outcome, Rights):
        _report_rights(report, url, found.outcome)
    else:
        report.ok("auth_url", f"{url} lets nobody register who is not logged in")


def ask_for_request(report: Report, settings: Settings) -> None:
    """Check that request_url answers, and that PHP accepts the relay's signature."""
    if not settings.request_url:
        return
    outcome = Target.of(settings).ask(request_event(Asked(REQUEST, "null"), Page("", None, [])), STRANGER)
    url, answer = without_secrets(settings.request_url), outcome.answer
    if outcome.cause:
        report.fail(
            "request_url", f"{url}: {outcome.reason}", Advice(f"{outcome.advice[:1].upper()}{outcome.advice[1:]}.")
        )
    elif isinstance(answer, Refused):
        report.ok("request_url", f"{url} answers, and refuses a request that it does not know ({answer.status})")
    else:
        advice = Advice("Answer 404 to names that your script does not know, so that mistakes in pages are noticed.")
        report.warn("request_url", f"{url} answers a request named {REQUEST}, which it cannot know", advice)


def _report_problem(report: Report, url: str, found: AuthResult) -> None:
    message = getattr(found.outcome, "message", "")
    advice = Advice(f"{found.advice[:1].upper()}{found.advice[1:]}.")
    is_denial = getattr(found.outcome, "error", "") == "not_allowed"
    # If it redirects to the login page, visitors who are logged in may still get an answer.
    (report.warn if is_denial else report.fail)("auth_url", f"{url}, asked without cookies: {message}", advice)


def _report_rights(report: Report, url: str, rights: Rights) -> None:
    if rights.ids.allows(ANY):
        advice = Advice(
            "Answer 401 there to visitors who are not logged in, or list the ids that everybody may register."
        )
        report.warn("auth_url", f"{url} lets anybody register any id, even without cookies", advice)
    elif rights.ids:
        report.ok("auth_url", f"{url} answers, and has ids for visitors who are not logged in")
    else:
        report.ok("auth_url", f"{url} answers, without ids for visitors who are not logged in")
