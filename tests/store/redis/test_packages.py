"""The packages that a Redis needs."""

import importlib.metadata

import pytest

from pushrelay.store.redis.packages import PackageMissing, check_packages


def test_the_packages_of_the_tests_are_accepted():
    check_packages()


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("redis", None, "the package redis is missing"),
        ("hiredis", None, "the package hiredis is missing"),
        ("redis", "6.4.0", "redis is 6.4.0, not >=7,<9"),
        ("redis", "9.0.0b1", "redis is 9.0.0b1"),
        ("hiredis", "3.1.9", "hiredis is 3.1.9, not >=3.2,<4"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_with_the_line_to_type(monkeypatch, name, version, words):
    real = importlib.metadata.version

    def found(asked):
        if asked == name and version is None:
            raise importlib.metadata.PackageNotFoundError
        return version if asked == name else real(asked)

    monkeypatch.setattr(importlib.metadata, "version", found)
    with pytest.raises(PackageMissing, match=words) as raised:
        check_packages()
    assert "pip install -r requirements-redis.txt" in str(raised.value) and "'pushrelay[redis]'" in str(raised.value)
