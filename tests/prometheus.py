"""A real Prometheus that scrapes relays of a test, with the rules of deploy/alerts.yml in a quicker copy."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request

from conftest import DEADLINE, ROOT, need, wait_for

ALERTS = (ROOT / "deploy/alerts.yml").read_text()
EVERY = "500ms"  # between two scrapes, and between two evaluations of the rules
AGE = 5  # seconds, instead of a minute
WINDOW, LONG_WINDOW = "8s", "5m"  # for rates, and for what must not be forgotten within a test


def quicker(rules):
    """Return the rules with short windows and short ages, and without waiting: a test cannot take ten minutes."""
    lines = []
    for line in rules.splitlines():
        # The longer a Redis cuts connections, the more seldom a relay makes one.
        window = LONG_WINDOW if re.search(r"changes\(|max_over_time\(|redis_cuts", line) else WINDOW
        line = re.sub(r"^( +expr: relay_outbox_behind_seconds) > 60$", rf"\1 > {AGE}", line)
        lines.append(re.sub(r"\[\d+\w\]", f"[{window}]", re.sub(r"^( +for:) \w+$", r"\1 0s", line)))
    return "\n".join(lines) + "\n"


def expressions(rules=ALERTS):
    """Return the expression of each alert."""
    found = re.findall(r"- alert: (\w+)\n +expr: (?:>-\n((?: {10,}.*\n)+)|(.*)\n)", rules)
    return {name: " ".join((folded or plain).split()) for name, folded, plain in found}


class Prometheus:
    """Scrapes these relays, as job "relay". It listens on a free port of this machine."""

    def __init__(self, folder, relays, rules=ALERTS):
        need(shutil.which("prometheus"), "Prometheus (apt-get install prometheus)")
        targets = ", ".join(f'"127.0.0.1:{relay.port}"' for relay in relays)
        (folder / "alerts.yml").write_text(quicker(rules))
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {EVERY}, scrape_timeout: {EVERY}, evaluation_interval: {EVERY}}}\n"
            f"rule_files: [alerts.yml]\n"
            f"scrape_configs:\n  - job_name: relay\n    static_configs: [{{targets: [{targets}]}}]\n"
        )
        self.log = folder / "prometheus.log"
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--web.listen-address=127.0.0.1:0"], stdout=output, stderr=output, cwd=folder
            )
        port = wait_for(lambda: re.search(r'"Listening on" address=127.0.0.1:(\d+)', self.log.read_text()), "the start")
        self.url = f"http://127.0.0.1:{port[1]}"
        wait_for(self._is_ready, "Prometheus to be ready")

    def _is_ready(self):
        try:
            return self.ask("/-/ready") or True
        except OSError:
            return False

    def ask(self, path, **fields):
        """Return the answer of the HTTP API, or its error."""
        query = f"?{urllib.parse.urlencode(fields)}" if fields else ""
        try:
            with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=DEADLINE) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:
                    raise
                body = error.read()
        return json.loads(body) if body.startswith(b"{") else body.decode()

    def query(self, expression):
        """Return the series of an expression: its labels, and its value. Raises AssertionError with Prometheus's."""
        answer = self.ask("/api/v1/query", query=expression)
        assert answer["status"] == "success", (expression, answer)
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def firing(self):
        """Return the alerts that fire, each with its figure."""
        alerts = self.ask("/api/v1/alerts")["data"]["alerts"]
        return {each["labels"]["alertname"]: float(each["value"]) for each in alerts if each["state"] == "firing"}

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
