"""The package that the outbox needs."""

import importlib.metadata

import pytest

from pushrelay.outbox.packages import check_outbox_packages
from pushrelay.packages import PackageMissing


def test_a_package_that_is_missing_or_too_old_is_named_with_the_line_to_type(monkeypatch):
    check_outbox_packages()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.1.3")
    with pytest.raises(
        PackageMissing, match=r"PyMySQL is 1.1.3, not >=1.2,<2, which the setting outbox needs. Run:  .*"
    ):
        check_outbox_packages()
