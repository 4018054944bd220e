"""The site's end of requests: Apache with PHP, whose script answers as the name of the request says.

PHP's own server will not do: its workers take connections that they cannot answer yet.
"""

import glob
import json

from conftest import free_port, need
from fronts import APACHE_PROGRAM, AS_ROOT, MODULES, Process, connects

SECRET = "webhook-secret-with-32-characters"
# `sleep:0.5` and the like wait; everything PHP gets is appended to the log, a JSON object a line.
SCRIPT = r"""<?php
$body = file_get_contents('php://input');
$event = json_decode($body, true)['events'][0];
[$name, $word] = explode(':', $event['name'] . ':');
$headers = array_change_key_case(getallheaders());
$line = json_encode(['headers' => $headers, 'body' => $body, 'events' => json_decode($body, true)['events']]);
file_put_contents(__DIR__ . '/got.log', $line . "\n", FILE_APPEND | LOCK_EX);
header('Content-Type: application/json');
switch ($name) {
    case 'echo': echo json_encode($event['data']); break;
    case 'sleep': usleep((int) ($word * 1e6)); echo json_encode($event['data']); break;
    case 'hold': // until the test calls release(word)
        for ($i = 0; $i < 4000 && !file_exists(__DIR__ . "/$word"); $i++) { usleep(5000); clearstatcache(); }
        echo json_encode($event['data']);
        break;
    case 'status': http_response_code((int) $word); break;
    case 'refuse': http_response_code((int) $word); echo json_encode($event['data']); break;
    case 'busy': http_response_code(429); header('Retry-After: 7'); break;
    case 'html': header('Content-Type: text/html'); echo '<h1>Welcome</h1> password=hunter2'; break;
    case 'warning': echo $undefined; echo '{}'; break;
    case 'throw': throw new Exception('secret stack trace');
    case 'large': echo '"' . str_repeat('x', (int) $word) . '"'; break;
    case 'redirect': header('Location: /login?from=here'); http_response_code(302); break;
    case 'empty': break;
    default: http_response_code(404); echo '{"message": "no such request"}';
}
"""
APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
Mutex file:{folder}
ErrorLog {log}
Listen 127.0.0.1:{port}
{loads}
{become}
StartServers {workers}
MinSpareServers 1
MaxRequestWorkers {workers}
DocumentRoot {folder}/www
<FilesMatch "\\.php$">
  SetHandler application/x-httpd-php
</FilesMatch>
php_admin_flag display_errors on
"""


class Site(Process):
    """A running site with this number of PHP workers. `url` is the address of the script."""

    def __init__(self, workers=8):
        super().__init__()
        need(APACHE_PROGRAM.exists(), "Apache (apt-get install apache2)")
        programs = glob.glob(f"{MODULES}/libphp*.so")
        need(programs, "PHP in Apache (apt-get install libapache2-mod-php)")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/relay.php"
        modules = {each: f"{MODULES}/mod_{each}.so" for each in ("mpm_prefork", "authz_core")}
        modules["php"] = programs[0]
        loads = "\n".join(f"LoadModule {name}_module {file}" for name, file in modules.items())
        become = "User www-data\nGroup www-data" if AS_ROOT else ""
        self._www = self.folder / "www"
        self._www.mkdir()
        self._www.chmod(0o777)  # the script writes there
        (self._www / "relay.php").write_text(SCRIPT)
        (self.folder / "apache.conf").write_text(
            APACHE.format(**vars(self), loads=loads, become=become, workers=workers)
        )
        command = [str(APACHE_PROGRAM), "-D", "FOREGROUND", "-f", str(self.folder / "apache.conf")]
        self.run(command, lambda: connects(("127.0.0.1", self.port)))

    def got(self):
        """Return what the script got: a list of {headers, body, events}."""
        log = self._www / "got.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def names(self):
        return [got["events"][0]["name"] for got in self.got()]

    def release(self, word):
        """Have the requests named `hold:WORD` answered."""
        (self._www / word).touch()
