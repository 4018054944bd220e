"""The paths of the relay's HTTP interface. relay.py has a route for each; docs/http-api.md describes them."""

PUSH_PATHS = {"/push": False, "/": True}  # the paths that take pushes, and whether that is the server's root
PROGRAM_PATHS = (  # for programs that ask
    "/history",
    "/presence",
    "/connections",
    "/ring",
    "/webhooks",
    "/metrics",
    "/health/live",
    "/health/ready",
)
FOLDERS = ("/static/", "/socket.io/")  # for browsers: everything below these
PATHS = (*PUSH_PATHS, *PROGRAM_PATHS)
# For people. Other sites have such paths too, so the log does not take them for the relay's below another path.
PAGES = ("/status", "/status.json", "/qr.svg", "/docs", "/docs/", "/docs/<name>", "/docs/pictures/<name>")
