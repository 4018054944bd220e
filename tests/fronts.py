"""Web servers in front of the relay: Debian's own, with the files of deploy/ as they are shipped.

Each runs in the foreground, in its own folder and on its own ports, so it does not disturb one that the system runs.
"""

import base64
import glob
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile

from conftest import DEADLINE, ROOT, free_port, need, wait_for

DEPLOY = ROOT / "deploy"
HOST = "www.example.test"  # the browser resolves it by a flag
APACHE_PROGRAM, NGINX_PROGRAM = pathlib.Path("/usr/sbin/apache2"), pathlib.Path("/usr/sbin/nginx")
MODULES = pathlib.Path("/usr/lib/apache2/modules")
AS_ROOT = os.geteuid() == 0  # these servers do not answer requests as root


class Certificate:
    """A certificate for host names, signed by its own CA. `pin` makes Chromium trust it."""

    def __init__(self, folder, hosts=(HOST,)):
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        # From 3.13 on, Python requires the extensions of RFC 5280: the purpose of the CA's key, and the signer's key.
        ca = ("-x509", *new, "-days", "2", "-subj", "/CN=Test CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl("req", *ca, "-keyout", folder / "ca.key", "-out", self.ca)
        request, extensions = folder / "request.pem", folder / "extensions"
        openssl("req", *new, "-subj", f"/CN={hosts[0]}", "-keyout", self.key, "-out", request)
        names = ",".join(f"DNS:{host}" for host in hosts)
        extensions.write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\nbasicConstraints=CA:FALSE\n")
        signing = ("-CA", self.ca, "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", extensions)
        openssl("x509", "-req", "-in", request, *signing, "-out", self.cert)
        key = openssl("x509", "-in", self.cert, "-noout", "-pubkey")
        der = ssl.PEM_cert_to_DER_cert(key.replace("PUBLIC KEY", "CERTIFICATE"))  # PEM files differ only in the name
        self.pin = base64.b64encode(hashlib.sha256(der).digest()).decode()


def openssl(*arguments):
    need(shutil.which("openssl"), "openssl")
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


class Process:
    """A program that stays in the foreground, with its own folder."""

    def __init__(self):
        # Not in pytest's folder, which only root can read, because these servers become www-data.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="front-"))
        self.folder.chmod(0o755)
        self.log = self.folder / "error.log"
        self.process = None

    def run(self, command, is_there):
        with (self.folder / "output").open("ab") as output:
            # Its own process group, because Apache ends its whole group when it stops.
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=self.folder, start_new_session=True
            )
        wait_for(lambda: is_there() or self.process.poll() is not None, f"the start of {command[0]}")
        assert self.process.poll() is None, self.said()

    def said(self):
        return "\n".join(each.read_text() for each in (self.folder / "output", self.log) if each.exists())

    def kill(self):
        """Kill it with all its children, whatever they are doing."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)

    def close(self):
        self.kill()  # a graceful stop of Apache waits up to ten seconds for its WebSockets
        shutil.rmtree(self.folder)


class PhpFpm(Process):
    """PHP-FPM, for servers that do not run PHP themselves."""

    def __init__(self):
        super().__init__()
        programs = glob.glob("/usr/sbin/php-fpm*")
        need(programs, "php-fpm (apt-get install php-fpm)")
        self.socket = self.folder / "php.sock"
        become = "user = www-data\ngroup = www-data\n" if AS_ROOT else ""
        (self.folder / "fpm.conf").write_text(
            f"[global]\nerror_log = {self.log}\npid = {self.folder}/pid\ndaemonize = no\n"
            f"[www]\nlisten = {self.socket}\nlisten.mode = 0666\n{become}pm = static\npm.max_children = 2\n"
        )
        self.run([programs[0], "-y", str(self.folder / "fpm.conf")], lambda: connects(self.socket))


class Front(Process):
    """A web server with the PHP pages of tests/site, and the relay at /relay/; http on `port`, https on `tls_port`."""

    def __init__(self, relay, certificate):
        super().__init__()
        self.relay = relay
        self.certificate = certificate
        self.port, self.tls_port = free_port(), free_port()
        self.push_url = f"{relay.url}/push"
        shutil.copytree(ROOT / "tests/site", self.folder / "www")
        self.start()

    def url(self, scheme="http"):
        return f"{scheme}://{HOST}:{self.port if scheme == 'http' else self.tls_port}"

    def shipped(self, name, *changes):
        """Take a file from deploy/, with this relay's port in it."""
        text = (DEPLOY / name).read_text()
        for old, new in (*changes, ("127.0.0.1:8080", f"127.0.0.1:{self.relay.port}")):
            text = text.replace(old, new)
        (self.folder / name).write_text(text)

    def start(self):
        """Start it, also after it was killed."""
        self.run(self.command(), lambda: all(connects(("127.0.0.1", port)) for port in (self.port, self.tls_port)))


APACHE_MODULES = ("authz_core", "mime", "dir", "env", "status", "reqtimeout", "filter", "deflate", "ssl", "rewrite")
APACHE_MODULES += ("authn_core", "authn_file", "auth_basic", "authz_user", "headers")
APACHE_MODULES += ("proxy", "proxy_http", "proxy_wstunnel")
APACHE = """
ServerRoot {folder}
ServerName {host}
PidFile {folder}/pid
Mutex file:{folder}
ErrorLog {log}
LogLevel warn
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{tls_port} https
TypesConfig /etc/mime.types
DocumentRoot {folder}/www
<Directory {folder}/www>
  Require all granted
</Directory>
RequestReadTimeout header=20-40,minrate=500 body=20,minrate=500
AddOutputFilterByType DEFLATE text/html text/plain application/javascript text/javascript
<Location "/server-status">
  SetHandler server-status
</Location>
SetEnv PUSH_URL {push_url}
{become}
{engine}
<VirtualHost *:{port}>
{vhost}
</VirtualHost>
<VirtualHost *:{tls_port}>
  SSLEngine on
  Protocols {protocols}
  SSLCertificateFile {cert}
  SSLCertificateKeyFile {key}
</VirtualHost>
Include {folder}/apache-relay.conf
"""
EVENT = """
StartServers 1
ThreadsPerChild 64
MaxRequestWorkers 128
<FilesMatch "\\.php$">
  SetHandler "proxy:unix:{php}|fcgi://localhost"
</FilesMatch>
"""
PREFORK = """
StartServers 32
MaxSpareServers 64
MaxRequestWorkers 64
<FilesMatch "\\.php$">
  SetHandler application/x-httpd-php
</FilesMatch>
"""


class Apache(Front):
    """Debian's Apache: on mpm_event with php-fpm, or on mpm_prefork with mod_php.

    `changes` replace texts in the shipped file, and `vhost` is added to its plain virtual host.
    """

    def __init__(self, relay, certificate, mpm, php=None, changes=(), vhost=""):
        need(APACHE_PROGRAM.exists(), "Apache (apt-get install apache2)")
        self.mpm, self.php, self.changes = mpm, php, changes
        self.vhost = vhost.replace("127.0.0.1:8080", f"127.0.0.1:{relay.port}")
        self.sapi = "fpm-fcgi" if php else "apache2handler"
        self.protocols = "h2 http/1.1" if php else "http/1.1"  # there is no HTTP/2 on prefork
        super().__init__(relay, certificate)

    def command(self):
        modules = {f"{name}_module": f"mod_{name}.so" for name in (f"mpm_{self.mpm}", *APACHE_MODULES)}
        if self.php:
            modules |= {"proxy_fcgi_module": "mod_proxy_fcgi.so", "http2_module": "mod_http2.so"}
        else:
            programs = glob.glob(f"{MODULES}/libphp*.so")
            need(programs, "PHP in Apache (apt-get install libapache2-mod-php)")
            modules["php_module"] = programs[0]
        loads = "\n".join(f"LoadModule {name} {MODULES / file}" for name, file in modules.items())
        engine = EVENT.format(php=self.php.socket) if self.php else PREFORK
        become = "User www-data\nGroup www-data" if AS_ROOT else ""
        own = {"host": HOST, "cert": self.certificate.cert, "key": self.certificate.key, "engine": engine}
        (self.folder / "apache.conf").write_text(loads + APACHE.format(**vars(self), **own, become=become))
        self.shipped("apache-relay.conf", *self.changes)
        return [str(APACHE_PROGRAM), "-D", "FOREGROUND", "-f", str(self.folder / "apache.conf")]

    def graceful(self):
        """Reload it as logrotate does, with `apachectl graceful`, and wait for the new processes."""
        seen = self.log.read_text().count("resuming normal operations")
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: self.log.read_text().count("resuming normal operations") > seen, "the graceful restart")


NGINX = """
daemon off;
pid {folder}/pid;
worker_processes 2;
{become}
events {{ worker_connections 768; }}
http {{
  access_log off;
  include /etc/nginx/mime.types;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  gzip on;
  gzip_types text/plain;
  ssl_certificate {cert};
  ssl_certificate_key {key};
  include {folder}/nginx-relay.conf;
  {servers}
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls_port} ssl http2;
    server_name {host};
    root {folder}/www;
    location ~ \\.php$ {{
      include /etc/nginx/fastcgi.conf;
      fastcgi_param PUSH_URL {push_url};
      fastcgi_pass unix:{php};
    }}
    include {folder}/nginx-relay-location.conf;
  }}
}}
"""


class Nginx(Front):
    """Debian's nginx, with php-fpm. `changes` replace texts in the shipped files; `servers` are added to the site's."""

    def __init__(self, relay, certificate, php, changes=(), servers=""):
        need(NGINX_PROGRAM.exists(), "nginx (apt-get install nginx-light)")
        self.php, self.changes, self.servers = php, changes, servers
        self.sapi = "fpm-fcgi"
        super().__init__(relay, certificate)

    def command(self):
        own = {"host": HOST, "cert": self.certificate.cert, "key": self.certificate.key, "php": self.php.socket}
        become = "user www-data;" if AS_ROOT else ""
        (self.folder / "nginx.conf").write_text(NGINX.format(**{**vars(self), **own}, become=become))
        for name in ("nginx-relay.conf", "nginx-relay-location.conf"):
            self.shipped(name, *self.changes)
        return [str(NGINX_PROGRAM), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", str(self.log)]

    def graceful(self):
        """Reload it as `nginx -s reload` does, and wait for the new workers."""
        before = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(self.workers() - before) == 2, "the new workers")

    def workers(self):
        return set(pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())


def connects(address):
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family) as sock:
        return sock.connect_ex(address if isinstance(address, tuple) else str(address)) == 0
