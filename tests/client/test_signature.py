"""The signature of what PHP gets: PHP computes the same one."""

import shutil
import subprocess

from conftest import need

from pushrelay.client.signature import signature

PHP = r"""echo hash_hmac('sha256', '1790000000.' . '{"events":[]}', 'a-long-secret');"""


def test_php_computes_the_same_signature():
    need(shutil.which("php"), "php")
    value = subprocess.run(["php", "-r", PHP], check=True, capture_output=True, text=True).stdout
    assert signature(["a-long-secret"], b'{"events":[]}', 1790000000.9) == f"t=1790000000,v1={value}"


def test_each_secret_signs_the_same_time_and_body():
    both = signature(["first-secret", "second-secret"], b"{}", 5.0).split(",")
    assert both == ["t=5", *(signature([each], b"{}", 5.0).split(",")[1] for each in ("first-secret", "second-secret"))]


def test_another_body_or_time_has_another_signature():
    made = {signature(["first-secret"], body, now).split(",")[1] for body in (b"{}", b"[]") for now in (1.0, 2.0)}
    assert len(made) == 4
