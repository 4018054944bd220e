"""Paths of the files that are not modules: next to the package in a clone, inside it in an installed relay."""

import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent
# The wheel has a copy of static, templates, php, deploy and the requirements here (see pyproject.toml).
_SHARE = _PACKAGE / "share"

IS_INSTALLED = _SHARE.is_dir()
HOME = _SHARE if IS_INSTALLED else _PACKAGE.parent  # has static, templates, php, deploy and requirements.txt
PROGRAM = _PACKAGE.parent / "relay.py"
# An upgrade replaces what is installed, so an installed relay has its settings in the folder where it is started.
SETTINGS_FILE = pathlib.Path("wsgi.ini") if IS_INSTALLED else HOME / "wsgi.ini"
