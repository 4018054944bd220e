"""Certificates are checked in the same way on every version of Python."""

import ssl

import pytest

from pushrelay.client.tls import client_context, insist_on_form, tls_context


def test_chain_and_name_are_checked_and_the_form_of_a_ca_is_not():
    context = tls_context()
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    insist_on_form(context)
    assert context.verify_flags & ssl.VERIFY_X509_STRICT


def test_without_verification_any_certificate_is_accepted():
    context = client_context(verify=False)
    assert context.verify_mode == ssl.CERT_NONE and not context.check_hostname


def test_a_file_that_holds_no_certificate_is_an_error(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for file in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(OSError, match=".+"):
            client_context(str(file))
