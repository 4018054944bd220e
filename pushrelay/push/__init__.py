"""Pushes, from the body of a request to the answer."""
