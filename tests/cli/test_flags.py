"""Every setting is a flag, and the help lists them all."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, clean_environ
from starting import run

import pushrelay
from pushrelay.cli.commands import COMMANDS
from pushrelay.cli.flags import ABOUT, COMMAND_NAMES, parse_flags
from pushrelay.settings import TABLE, SettingsError, load


def test_settings_that_do_not_exist_are_refused_in_every_spelling():
    with pytest.raises(SettingsError, match="no setting called nothing"):
        parse_flags(["--nothing=1"])
    with pytest.raises(SettingsError, match="must be"):
        load({}, {"port": "٨٠"})


def test_help_lists_every_setting():
    ran = run("--help")
    assert ran.returncode == 0
    for setting in TABLE:
        assert f"--{setting.name.replace('_', '-')}" in ran.stdout


def test_help_names_a_file_in_a_folder_with_a_percent_sign(tmp_path):
    folder = tmp_path / "100%/relay"
    shutil.copytree(ROOT / "pushrelay", folder / "pushrelay", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "relay.py", folder)
    command = [sys.executable, str(folder / "relay.py"), "--help"]
    environ = {**clean_environ(), "COLUMNS": "1000"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environ)
    assert ran.returncode == 0 and f"(default: {folder / 'wsgi.ini'})" in ran.stdout, ran


def test_version_prints_the_version_of_the_package():
    ran = run("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"relay {pushrelay.__version__}\n", "")
    php = json.loads((ROOT / "php/composer.json").read_text())
    assert php["version"] == pushrelay.__version__
    assert f"\n## {pushrelay.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_help_names_every_command():
    assert set(COMMAND_NAMES) == set(COMMANDS)
    assert [line.split()[2] for line in ABOUT.splitlines() if line.startswith("  python relay.py ")] == list(
        COMMAND_NAMES
    )
