"""The table of settings."""

import os

import pytest
from refused_settings import KEY, SECRET

from pushrelay.settings import TABLE, Settings, SettingsError, load


def test_no_representation_of_the_settings_contains_a_secret():
    settings = load({"RELAY_CONFIG": os.devnull}, {"secret": SECRET, "push_keys": f"web:{KEY}"})
    assert KEY not in repr(settings.push_keys) and SECRET not in repr(settings) + repr(settings.given)


def test_every_number_in_the_table_has_bounds_that_people_can_read():
    for row in TABLE:
        with pytest.raises(ValueError) as refused:
            row.parse("\u00e9\x00 \u00e9")
        assert "e+" not in str(refused.value)


def test_each_setting_is_an_attribute_with_its_default():
    settings = Settings()
    assert {row.name: getattr(settings, row.name) for row in TABLE} == {row.name: row.default for row in TABLE}
    assert Settings.max_body == settings.max_body  # other classes take their defaults from here


def test_a_setting_that_does_not_exist_is_not_an_argument():
    with pytest.raises(TypeError, match="history_sise"):
        Settings(history_sise=5)


def test_settings_that_contradict_each_other_are_refused_together():
    with pytest.raises(SettingsError, match="request_url needs webhook_secret"):
        load({"RELAY_CONFIG": os.devnull}, {"request_url": "http://127.0.0.1/ask.php"})
    with pytest.raises(SettingsError, match=r"origins = \* and request_url"):
        flags = {"request_url": "http://127.0.0.1/ask.php", "webhook_secret": "x" * 32, "origins": "*"}
        load({"RELAY_CONFIG": os.devnull}, flags)
    with pytest.raises(SettingsError, match=r"origins = \* and id_cookie"):
        Settings(origins=("*",), id_cookie="PHPSESSID")
