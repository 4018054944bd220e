"""The servers that are compared: how each is started, and which requests it takes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
    """One of the servers that are compared.

    Its command, and that of the program beside it, may have {port}, {push_port}, {beside} (the port of the program
    beside it), {dir} (a temporary folder), {cache}, {bench}, {threads} and {socket_io}.
    """

    name: str
    label: str
    command: str  # empty for the relay: see relay_command()
    push_path: str
    slow: bool = False  # such a server gets fewer clients
    api: str = "push"  # what a push looks like: API of relayload.c
    listen_path: str = ""  # of its WebSocket, before the destination; empty for Socket.IO
    beside: str = ""  # the command of a program that it needs, which is started first
    config: str = ""  # a file of this folder, which is copied to {dir} with @port@, @dir@ and so on filled in
    needs: tuple[str, ...] = ()  # programs and files of Debian packages
    package: str = ""  # the packages that have them, for apt-get install
    version: str = ""  # the package whose version is shown: deb:NAME, npm:NAME or pip:NAME


REDIS = "redis-server --port {port} --bind 127.0.0.1 --dir {dir} --save ''"
EVERY_SECOND = "--appendonly yes --appendfsync everysec"
NCHAN = "/usr/lib/nginx/modules/ngx_nchan_module.so"
GUNICORN = (
    "{cache}/venv/bin/python -m gunicorn --worker-class gthread --threads {threads} --worker-connections {threads} "
    "--graceful-timeout 1 --chdir {bench} --bind 127.0.0.1:{port} stock:app"
)
UVICORN = (
    "{cache}/venv/bin/python -m uvicorn --app-dir {bench} --port {port} --backlog 4096 --no-access-log "
    "--log-level warning asgi:app"
)


def nchan(name: str, label: str, workers: str) -> Kind:
    return Kind(
        name,
        label,
        f"/usr/sbin/nginx -p {{dir}} -c {{dir}}/nchan.conf -g 'worker_processes {workers};'",
        "/pub/%s",
        api="path",
        listen_path="/sub/",
        config="nchan.conf",
        needs=("/usr/sbin/nginx", NCHAN),
        package="nginx-light libnginx-mod-nchan",
        version="deb:libnginx-mod-nchan",
    )


def pushpin() -> Kind:
    return Kind(
        "pushpin",
        "pushpin",
        "pushpin --merge-output --config {dir}/pushpin.conf --route '* 127.0.0.1:{beside},over_http'",
        "/publish/",
        api="grip",
        listen_path="/",
        beside="node {bench}/grip.js {port}",
        config="pushpin.conf",
        needs=("pushpin", "zurl", "condure", "node"),
        package="pushpin nodejs",
        version="deb:pushpin",
    )


def on_redis(name: str, label: str, command: str, push_path: str, version: str = "") -> Kind:
    beside = f"{REDIS} {EVERY_SECOND}"
    return Kind(
        name, label, command, push_path, beside=beside, needs=("redis-server",), package="redis-server", version=version
    )


KINDS = {
    kind.name: kind
    for kind in [
        Kind("relay", "the relay", "", "/push"),
        Kind("seed", "Node.js, socket.io", "node {cache}/seed.js {port}", "/", version="npm:socket.io"),
        nchan("nchan", "nchan, 1 worker", "1"),
        nchan("nchan-auto", "nchan, all cores", "auto"),
        pushpin(),
        on_redis("redis", "the relay on Redis", "", "/push"),
        on_redis(
            "adapter",
            "socket.io on Redis",
            "node {cache}/seed.js {port} redis://127.0.0.1:{beside}",
            "/",
            "npm:@socket.io/redis-adapter",
        ),
        Kind("uvicorn", "python-socketio, uvicorn", UVICORN, "/", slow=True, version="pip:python-socketio"),
        Kind(
            "werkzeug",
            "Flask-SocketIO, Werkzeug",
            "{cache}/venv/bin/python {bench}/stock.py {port}",
            "/",
            slow=True,
            version="pip:flask-socketio",
        ),
        Kind("gunicorn", "Flask-SocketIO, gunicorn", GUNICORN, "/", slow=True, version="pip:flask-socketio"),
    ]
}
