"""GET /status.json: the figures of the last hour, the last problems, and one sentence about both."""
