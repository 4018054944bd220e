"""The parts of the relay that know nothing of Flask: one noun a file."""

__version__ = "0.1.0"
