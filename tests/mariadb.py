"""Real MariaDB servers for tests, each in a folder of its own: killed, restarted, and with a database for each test.

    with MariaDB(tmp_path) as server:
        site = server.site()
        relay = start_relay(outbox=site.url)
        site.insert("42", "hello")

Nothing uses a server that the system runs. The servers listen on free ports of 127.0.0.1, and on a Unix socket.
"""

import contextlib
import itertools
import pathlib
import shutil
import subprocess

import pymysql
from conftest import DEADLINE, free_port, need, wait_for

from pushrelay.outbox import table

PROGRAM = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
INSTALL = shutil.which("mariadb-install-db")
PASSWORD = "w3-Kp7_tQx"


class MariaDB:
    """A server in a process of its own, which has started. Arguments are its options, with _ for -."""

    def __init__(self, folder, **options):
        need(PROGRAM and INSTALL, "MariaDB (apt-get install mariadb-server-core mariadb-client-core)")
        self.folder = pathlib.Path(folder)
        self.socket = self.folder / "s"
        self.port = free_port()
        self.log = self.folder / "mariadb.log"
        self.options = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._names = (f"site{number}" for number in itertools.count())
        data = f"--datadir={self.folder}/data"
        install = [INSTALL, "--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db"]
        # A server that starts removes the temporary tables of all others that use the same folder for them.
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        install.append(f"--tmpdir={self.temporary}")
        ran = subprocess.run([*install, "--user=root", "--innodb-log-file-size=4M"], capture_output=True, text=True)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        self.start()
        self.ask(f"CREATE USER relay@'%' IDENTIFIED BY '{PASSWORD}'")

    def start(self):
        """Start it, on the same port and with the same data as before, and wait until it answers."""
        command = [PROGRAM, "--no-defaults", "--user=root", f"--datadir={self.folder}/data", f"--socket={self.socket}"]
        command += [f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve", *self.options]
        command += [f"--tmpdir={self.temporary}"]
        command += ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", "--performance-schema=OFF"]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder)
        try:
            wait_for(self._answers, "the start of MariaDB", 3 * DEADLINE)
        except BaseException:
            self.kill()
            raise

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(pymysql.err.OperationalError):
            self.connect().close()
            return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        """End it as kill -9 does."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def connect(self, database=None, **options):
        """Return a connection of the administrator, without TLS: PyMySQL would read all certificates of the system."""
        place = {"unix_socket": str(self.socket), "user": "root", "database": database, "ssl_disabled": True}
        return pymysql.connect(**{**place, "autocommit": True, "charset": "utf8mb4", **options})

    def ask(self, sql, database=None):
        """Run a statement as the administrator; return the rows that it finds."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def site(self):
        """Return a new database with an empty outbox."""
        return Site(self, next(self._names))


class Site:
    """A database with an outbox. `url` is the setting outbox for it."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.url = f"mysql://relay:{PASSWORD}@127.0.0.1:{server.port}/{name}"
        server.ask(f"CREATE DATABASE {name}")
        server.ask(f"GRANT SELECT, UPDATE, DELETE ON {name}.* TO relay@'%'")
        self.ask(table.CREATE)

    def ask(self, sql):
        return self.server.ask(sql, self.name)

    def insert(self, *rows):
        """Insert (destination, data) or rows with more columns, which are (column, value) pairs, in one transaction."""
        with self.transaction() as transaction:
            for row in rows:
                transaction.insert(*row[:2], **dict(row[2:]))

    def transaction(self):
        return Transaction(self.server.connect(self.name, autocommit=False))

    def waiting(self):
        """Return the number of rows that the relay has to take."""
        return self.ask(f"SELECT COUNT(*) FROM {table.NAME} WHERE error IS NULL")[0][0]  # noqa: S608

    def connections(self):
        """Return the ids of the relay's connections."""
        sql = f"SELECT id FROM information_schema.processlist WHERE user = 'relay' AND db = '{self.name}'"  # noqa: S608
        found = self.ask(sql)
        return [id_ for (id_,) in found]


class Transaction:
    """A transaction as PHP has one: it commits at the end of a `with`, or by commit()."""

    def __init__(self, connection):
        self.connection = connection

    def run(self, sql, *values):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.lastrowid

    def insert(self, destination, data, **columns):
        """Insert a row; return its id."""
        names = ["destination", "data", *columns]
        sql = f"INSERT INTO {table.NAME} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"  # noqa: S608
        return self.run(sql, destination, data, *columns.values())

    def commit(self):
        self.connection.commit()
        self.connection.close()

    def roll_back(self):
        self.connection.rollback()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.commit() if kind is None else self.roll_back()
