"""Paths of files next to the package, in a clone. test_install.py tries them in an installed relay."""

from conftest import ROOT

from pushrelay import places


def test_a_clone_has_its_files_next_to_the_package():
    assert not places.IS_INSTALLED
    assert ROOT == places.HOME
    assert ROOT / "relay.py" == places.PROGRAM and ROOT / "wsgi.ini" == places.SETTINGS_FILE
    for name in ("static", "templates", "php", "deploy", "requirements.txt"):
        assert (places.HOME / name).exists()
