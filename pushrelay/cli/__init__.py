"""The command line: serving, push, listen, token, doctor."""
