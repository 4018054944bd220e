"""Every setting: its name, its default, what its text may be, and where it is read from."""

from .table import NAMES as NAMES
from .table import TABLE as TABLE
from .table import Key as Key
from .table import Settings as Settings
from .table import SettingsError as SettingsError
from .table import load as load
from .table import without_secrets as without_secrets
