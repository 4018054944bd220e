"""The operator's log: written by a thread of its own, and bounded."""
