"""Several relays, and load balancers in front of them with the files of deploy/ as they are shipped."""

import contextlib
import pathlib
import re
import signal

from cluster import Node
from conftest import free_port, need
from fronts import APACHE_PROGRAM, AS_ROOT, DEPLOY, MODULES, NGINX_PROGRAM, Process, connects

HAPROXY_PROGRAM = pathlib.Path("/usr/sbin/haproxy")
NAMES = "abc"
KEY = "a-key-of-the-tests-0123456789"
PATH = "/relay/socket.io/?EIO=4&transport="


class Nodes:
    """Relays named a, b and c on this machine."""

    def __init__(self, folder, names=NAMES, **settings):
        settings = {"server": "own", "push_keys": KEY, "ping_interval": 1, "ping_timeout": 5, **settings}
        with contextlib.ExitStack() as stack:
            self.relays = []
            for name in names:
                self.relays.append(Node(name, folder / f"node-{name}", node=name, **settings))
                stack.callback(self.relays[-1].kill)
            self._stack = stack.pop_all()

    def __iter__(self):
        return iter(self.relays)

    def __len__(self):
        return len(self.relays)

    def __getitem__(self, number):
        return self.relays[number]

    def close(self):
        self._stack.close()

    def log(self):
        return "".join(relay.log.read_text() for relay in self.relays)


class Balancer(Process):
    """A load balancer: browsers connect to `port`, programs push to `push_port`.

    `changes` replace texts in its file.
    """

    def __init__(self, nodes, changes=()):
        super().__init__()
        self.nodes, self.changes = nodes, changes
        self.port, self.push_port = free_port(), free_port()
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def shipped(self, name):
        """Take a file from deploy/, with the ports of these nodes and without TLS."""
        text = (DEPLOY / name).read_text()
        for number, address in enumerate(("10.0.0.1", "10.0.0.2", "10.0.0.3")):
            relay = self.nodes[number % len(self.nodes)]
            text = text.replace(f"{address}:8080", f"127.0.0.1:{relay.port}")
        text = text.replace("127.0.0.1:8090", f"127.0.0.1:{self.push_port}")
        for old, new in self.changes:
            assert old in text or name.endswith("-location.conf"), old
            text = text.replace(old, new)
        (self.folder / name).write_text(text)

    def start(self):
        """Start it, also after it was killed."""
        self.run(self.command(), lambda: all(connects(("127.0.0.1", port)) for port in (self.port, self.push_port)))


NGINX = """
daemon off;
pid {folder}/pid;
worker_processes 2;
{become}
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/nginx-relay-nodes.conf;
  server {{
    listen 127.0.0.1:{port};
    include {folder}/nginx-relay-nodes-location.conf;
  }}
}}
"""


class NginxBalancer(Balancer):
    """Debian's nginx."""

    ROUND_ROBIN = tuple((f"  ~\\.{name}$   relay_{name};\n", "") for name in NAMES)

    def command(self):
        need(NGINX_PROGRAM.exists(), "nginx (apt-get install nginx-light)")
        become = "user www-data;" if AS_ROOT else ""
        (self.folder / "nginx.conf").write_text(NGINX.format(**vars(self), become=become))
        for name in ("nginx-relay-nodes.conf", "nginx-relay-nodes-location.conf"):
            self.shipped(name)
        return [str(NGINX_PROGRAM), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", str(self.log)]


APACHE = """
ServerRoot {folder}
ServerName www.example.test
PidFile {folder}/pid
Mutex file:{folder}
DefaultRuntimeDir {folder}
ErrorLog {log}
LogLevel warn
Listen 127.0.0.1:{port}
DocumentRoot {folder}
<Location "/">
  Require all granted
</Location>
StartServers 1
ThreadsPerChild 64
MaxRequestWorkers 128
{become}
Include {folder}/apache-relay-nodes.conf
"""
APACHE_MODULES = ("mpm_event", "authz_core", "headers", "slotmem_shm", "proxy", "proxy_http", "proxy_balancer")
APACHE_MODULES += ("lbmethod_bybusyness", "proxy_hcheck")


class ApacheBalancer(Balancer):
    """Debian's Apache."""

    ROUND_ROBIN = (("stickysession=sid ", ""),)

    def command(self):
        need(APACHE_PROGRAM.exists(), "Apache (apt-get install apache2)")
        loads = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in APACHE_MODULES)
        become = "User www-data\nGroup www-data" if AS_ROOT else ""
        (self.folder / "apache.conf").write_text(loads + APACHE.format(**vars(self), become=become))
        self.shipped("apache-relay-nodes.conf")
        return [str(APACHE_PROGRAM), "-D", "FOREGROUND", "-f", str(self.folder / "apache.conf")]


HAPROXY = """
global
  log stderr local0 warning
  maxconn 2000
defaults
  log global
"""


class HAProxyBalancer(Balancer):
    """Debian's HAProxy."""

    ROUND_ROBIN = (("  use_backend relay_sessions if { url_param(sid) -m found }\n", ""),)

    def command(self):
        need(HAPROXY_PROGRAM.exists(), "HAProxy (apt-get install haproxy)")
        name = "haproxy-relay-nodes.cfg"
        self.shipped(name)
        file = self.folder / name
        text = re.sub(r"bind :443 ssl .*", f"bind 127.0.0.1:{self.port}", file.read_text())
        file.write_text(HAPROXY + text)
        return [str(HAPROXY_PROGRAM), "-db", "-f", str(file)]

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        super().close()


BALANCERS = (NginxBalancer, ApacheBalancer, HAProxyBalancer)
