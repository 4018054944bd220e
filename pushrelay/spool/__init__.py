"""The spool: a folder on this machine into which programs put pushes while the relay cannot be reached."""
