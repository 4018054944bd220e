"""TLS for the client: certificates are checked in the same way on every version of Python."""

import ssl


def client_context(ca: str = "", verify: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the system's CAs and those in the file `ca`. Raises OSError for that file.

    Chain, name and dates are always checked. Python 3.13 also refuses a CA without the extensions that RFC 5280 asks
    for (VERIFY_X509_STRICT). Earlier Pythons and all browsers accept it, and many sites have created their own CA
    without them, so this context accepts them too. SSL_CERT_FILE in the environment replaces the system's CAs.
    """
    context = ssl.create_default_context()
    context.verify_flags = (context.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca:
        context.load_verify_locations(ca)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_context(ca: str = "", verify: bool = True) -> ssl.SSLContext:
    """Return a client_context() for a connection that speaks HTTP/1.1 only. Raises OSError for the file `ca`."""
    context = client_context(ca, verify)
    context.set_alpn_protocols(["http/1.1"])
    return context


def insist_on_form(context: ssl.SSLContext) -> None:
    """Refuse certificates without the extensions that RFC 5280 requires, as Python does from 3.13 on."""
    context.verify_flags |= ssl.VERIFY_X509_STRICT
