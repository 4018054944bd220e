"""The command line: start-up, flags, and the commands push, listen, token and doctor."""
