"""Presence with people: who is at a destination, for pages that watch it and for programs that ask."""
