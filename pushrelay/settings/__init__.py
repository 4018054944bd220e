"""Every setting: its name, type, default and bounds, and the sources of its value."""

from .sources import load as load
from .sources import without_secrets as without_secrets
from .table import NAMES as NAMES
from .table import TABLE as TABLE
from .table import Settings as Settings
from .values import Key as Key
from .values import SettingsError as SettingsError
