"""The differences that a reload finds in the sources of the settings."""

import os
import re

import pytest
from conftest import ROOT
from refused_settings import KEY, SECRET

from pushrelay.settings import TABLE, Settings, SettingsError, load
from pushrelay.settings.changes import read_changes


def test_reloadable_settings_change_and_the_others_wait(tmp_path):
    file = tmp_path / "my.ini"
    file.write_text("[relay]\nport = 1\nmax_ids = 1\n")
    running = load({"RELAY_CONFIG": str(file), "RELAY_MAX_BODY": "2000"}, {"threads": "5"})
    running.imported = True
    file.write_text("[relay]\nport = 2\nmax_ids = 2\nthreads = 9\nmax_body = 3000\ndemo = yes\n")
    settings, changed, waiting = read_changes(running)
    assert sorted(changed) == ["demo", "max_ids"] and waiting == ["port"]
    assert (settings.port, settings.max_ids, settings.threads, settings.max_body) == (1, 2, 5, 2000)
    assert settings.imported and read_changes(settings)[1:] == ([], ["port"]), "it can be reloaded again"


def test_the_same_file_is_read_though_the_working_folder_and_the_environment_have_changed(tmp_path, monkeypatch):
    (tmp_path / "my.ini").write_text(f"[relay]\nsecret = {SECRET}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_CONFIG", "my.ini")
    running = load()
    monkeypatch.chdir("/")
    monkeypatch.setenv("RELAY_CONFIG", os.devnull)
    assert read_changes(running)[1:] == ([], [])


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_is_gone_does_not_open_the_relay(tmp_path, monkeypatch, named):
    file = tmp_path / "my.ini"
    file.write_text(f"[relay]\nsecret = {SECRET}\n")
    monkeypatch.setattr("pushrelay.settings.sources.SETTINGS_FILE", file)
    running = load({"RELAY_CONFIG": str(file)} if named else {})
    file.unlink()
    with pytest.raises(SettingsError, match=r"my\.ini"):
        read_changes(running)


def test_a_value_that_contradicts_one_that_waits_for_a_restart_is_refused(tmp_path):
    file = tmp_path / "my.ini"
    file.write_text("[relay]\nhistory_bytes = 2M\n")
    running = load({"RELAY_CONFIG": str(file)})
    file.write_text("[relay]\nhistory_bytes = 8M\nmax_body = 4M\n")
    with pytest.raises(SettingsError, match="until a restart applies history_bytes: max_body = 4194304 is more than"):
        read_changes(running)


def test_settings_that_nobody_has_read_cannot_be_read_again():
    with pytest.raises(SettingsError):
        read_changes(Settings())


def test_the_docs_mark_the_settings_that_need_a_restart():
    rows = re.findall(r"^\| `(\w+)`( †)? \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    marks = {name: bool(mark) for name, mark in rows}
    assert {name: marks.get(name) for name in (row.name for row in TABLE)} == {
        row.name: not row.reloadable for row in TABLE
    }


def test_no_key_is_in_what_a_reload_returns_about_names(tmp_path):
    file = tmp_path / "my.ini"
    file.write_text(f"[relay]\npush_keys = web:{KEY}\n")
    running = load({"RELAY_CONFIG": str(file)})
    file.write_text(f"[relay]\npush_keys = web:{KEY[::-1]}\n")
    assert read_changes(running)[1:] == (["push_keys"], [])
