"""The doctor explains why the certificate of the public address is not accepted."""

import pytest

from pushrelay.cli.doctor.entrance import about_tls


@pytest.mark.parametrize(
    "said",
    [
        "CA cert does not include key usage extension",
        "Missing Authority Key Identifier",
        "Missing Subject Key Identifier",
    ],
)
def test_a_certificate_that_only_newer_pythons_refuse_is_explained(said):
    (advice,) = about_tls(f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {said} (_ssl.c:1020)")
    assert "3.13" in advice.sentence and any("keyCertSign" in line for line in advice.lines)
    (other,) = about_tls("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer")
    assert "--ca FILE" in other.sentence


def test_a_server_that_speaks_http_2_only_is_named():
    (advice,) = about_tls("TLS failed: TLSV1_ALERT_NO_APPLICATION_PROTOCOL")
    assert "HTTP/2 only" in advice.sentence and advice.lines == ("Protocols h2 http/1.1",)
