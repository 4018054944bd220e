"""php/Relay.php in PHP with other configurations, and Unix sockets of other users."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest
from conftest import ROOT, need, own_only
from phplab import CLIENT, reply, says

from pushrelay.server.sockets import bind_unix
from pushrelay.settings import Settings, SettingsError

CALLED = """
$tokens = array_values(array_filter(token_get_all(file_get_contents($argv[1])), function ($t) {
    return !is_array($t) || !in_array($t[0], [T_WHITESPACE, T_COMMENT, T_DOC_COMMENT]);
}));
foreach ($tokens as $i => $token) {
    $before = $tokens[$i - 1] ?? '';
    $isMethod = is_array($before) && in_array($before[0], [T_OBJECT_OPERATOR, T_DOUBLE_COLON, T_FUNCTION, T_NEW]);
    if (is_array($token) && $token[0] === T_STRING && ($tokens[$i + 1] ?? '') === '(' && !$isMethod) {
        $called[strtolower($token[1])] = function_exists($token[1]);
    }
}
echo json_encode(array_keys(array_filter($called)));
"""
# Functions that PHP can push without: streams replace cURL, and the breaker and the error handler are optional.
SPARED = re.findall(
    r"\w+",
    """
    curl_init curl_setopt_array curl_exec curl_getinfo curl_error curl_errno getmypid posix_geteuid posix_getpid
    stream_socket_client stream_context_create stream_set_blocking stream_select stream_socket_enable_crypto
    fwrite fread feof set_error_handler restore_error_handler usleep hrtime microtime random_bytes uniqid ini_get
    sys_get_temp_dir mkdir lstat fopen flock tmpfile fstat rewind md5 intdiv file_exists is_writable
    apcu_fetch apcu_add apcu_cas apcu_store apcu_enabled
    """,
)


def pushed_without(php, url, *functions, code="echo json_encode([$relay->push('42', 1), $relay->lastError()]);"):
    flags = ["-d", f"disable_functions={','.join(functions)}", "-d", "apc.enable_cli=1"]
    start = (
        f"set_exception_handler(function ($e) {{ echo 'thrown: ', $e->getMessage(); }});\n"
        f"$relay = new Relay('{url}', ['budget' => 5]);"
    )
    script = php.folder / f"{'-'.join(functions)[:100]}.php"
    script.write_text(f"<?php error_reporting(E_ALL); require '{CLIENT}'; {start} {code}")
    ran = subprocess.run(["php", *flags, script], capture_output=True, text=True, env=php.environ, timeout=60)
    assert not ran.stderr, ran
    return ran.stdout


@own_only
def test_each_function_that_a_host_may_disable_is_not_needed_or_named(relay, php):
    script = php.folder / "called.php"
    script.write_text("<?php " + CALLED)
    found = subprocess.run(["php", script, CLIENT], capture_output=True, text=True, check=True)
    called = json.loads(found.stdout)
    assert {"curl_exec", "getmypid", "json_encode"} < set(called) and len(called) > 60
    called = [each for each in called if each not in ("json_encode", "class_exists", "class_alias", "function_exists")]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, said in zip(called, pool.map(lambda each: pushed_without(php, relay.url, each), called), strict=True):
            answer, error = json.loads(said)
            if name in SPARED:
                assert answer and answer["id"], (name, said)
            assert answer or f"{name}()" in error, (name, said)
            assert answer or "disable_functions" in error, (name, said)


@own_only
def test_without_curl_and_without_streams_the_sentence_names_what_is_missing(relay, php):
    for functions in (("curl_exec", "stream_select"), ("curl_init", "curl_exec", "fwrite", "stream_socket_client")):
        answer, error = json.loads(pushed_without(php, relay.url, *functions))
        assert answer is None and error.startswith("misconfigured: ") and "disable_functions" in error
        assert all(f"{name}()" in error for name in functions), error
    extras = [each for each in SPARED if not each.startswith(("stream", "f")) and each != "microtime"]
    assert json.loads(pushed_without(php, relay.url, *extras))[0], "without cURL and without the breaker"


# --- Unix sockets ---


def mode_of(path):
    return os.stat(path).st_mode & 0o777


def test_a_unix_socket_has_the_mode_and_the_group_of_the_settings(tmp_path):
    before = os.umask(0o077)
    try:
        for mode, group, expected in ((None, "", 0o700), (0o660, "", 0o660), (0o666, "", 0o666), (None, "root", 0o660)):
            with bind_unix(f"{tmp_path}/s{mode}{group}", mode, group):
                assert mode_of(f"{tmp_path}/s{mode}{group}") == expected
        assert os.umask(0o077) == 0o077, "the umask is what it was"
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        with bind_unix(f"{tmp_path}/group", 0o660, "12345"):
            assert os.stat(f"{tmp_path}/group").st_gid == 12345
    with pytest.raises(OSError, match="no group no-such-group") as refused:
        bind_unix(f"{tmp_path}/none", 0o660, "no-such-group")
    assert refused.value.errno is None and not os.path.exists(f"{tmp_path}/none")


def test_a_mode_without_a_unix_socket_and_one_that_excludes_the_relay_are_refused():
    with pytest.raises(SettingsError, match="set host to unix:"):
        Settings(socket_mode=0o660)
    from pushrelay.settings.values import file_mode, group_name

    assert (file_mode("660"), file_mode("0666"), file_mode("")) == (0o660, 0o666, None)
    for text in ("060", "999", "rw-rw----", "0o660", "66"):
        with pytest.raises(ValueError, match="660"):
            file_mode(text)
    with pytest.raises(ValueError, match="www-data"):
        group_name("www data")


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="relay-test-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103
        yield pathlib.Path(folder)


AS_NOBODY = """
    posix_setgid(65534); posix_setuid(65534);
    $relay = new Relay('unix:{path}', ['transport' => '{transport}', 'cooldown' => 0, 'budget' => 5]);
    $answer = $relay->push('42', 1);
    echo json_encode([$answer !== null, $relay->lastError()]);"""


@pytest.fixture(params=["curl", "streams"])
def transport(request):
    return request.param


@own_only
def test_the_error_names_what_keeps_php_from_a_unix_socket(open_folder, start_relay, php, transport):
    need(os.geteuid() == 0, "root, to be other users")
    folder = open_folder / "run"
    folder.mkdir(mode=0o755)
    path = f"{folder}/relay.sock"
    relay = start_relay(host=f"unix:{path}", socket_mode="600")

    def said(path=path):
        taken, error = php.run(AS_NOBODY.replace("{path}", path).replace("{transport}", transport))
        return "taken" if taken else error

    assert "permission denied" in said() and "socket_mode" in said() and "port 80" not in said()
    os.chmod(path, 0o666)  # noqa: S103
    assert said() == "taken"
    folder.chmod(0o700)
    assert "permission denied" in said() and f"folder {folder}" in said()
    folder.chmod(0o755)
    relay.kill()
    assert "no relay listens" in said()
    os.unlink(path)
    assert f"there is no socket {path}" in said()
    (folder / "relay.sock").write_text("")
    os.chmod(path, 0o666)  # noqa: S103
    assert "is not a socket" in said()
    assert "there is no folder" in said(f"{folder}/no/s.sock")
    long = f"{folder}/{'s' * 108}"
    assert said(long).startswith("misconfigured: ") and "107 bytes" in said(long)


# --- Secrets, and data that would be lost ---


def test_no_dump_and_no_trace_shows_the_key_or_the_secret(php, stranger):
    shut = stranger(says(reply("403 Forbidden", b'{"error":"wrong_key","message":"none of the push_keys"}')))
    got = php.run(
        f"""
        class Shop {{ public $relay; }}
        $relay = new Relay('{shut.url}', ['key' => 'KEY-THAT-HIDES', 'secret' => 'SECRET-THAT-HIDES', 'budget' => 5]);
        $shop = new Shop; $shop->relay = $relay;
        $relay->push('42', 1);
        ob_start();
        print_r($relay); var_dump($shop); var_export($relay); print_r((array) $relay); var_export((array) $shop);
        echo serialize($shop), json_encode($relay), $relay->lastError();
        foreach (['curl', 'streams'] as $transport) {{
            $strict = ['key' => 'KEY-THAT-HIDES', 'secret' => 'SECRET-THAT-HIDES', 'strict' => true];
            $strict['transport'] = $transport;
            foreach (['http://127.0.0.1:1', '{shut.url}'] as $url) {{
                try {{ (new Relay($url, $strict))->push('42', 1); }}
                catch (RelayException $e) {{ echo $e; print_r($e->getTrace()); var_export($e->getTrace()); }}
            }}
            try {{ new Relay('nowhere', $strict); }}
            catch (RelayException $e) {{ echo $e; print_r($e->getTrace()); }}
        }}
        $shown = ob_get_clean();
        $token = (clone $relay)->token(['ids' => ['42'], 'exp' => 1]);
        echo json_encode([$shown, strlen($token) > 50]);""",
        *("-d", "zend.exception_ignore_args=0", "-d", "zend.exception_string_param_max_len=1000"),
    )
    assert "KEY-THAT" not in got[0] and "SECRET-THAT" not in got[0] and "(hidden)" in got[0]
    assert got[1] and b"\r\nAuthorization: Bearer KEY-THAT-HIDES\r\n" in shut.requests[0]


@own_only
def test_a_relay_that_was_serialized_pushes_unless_it_had_a_key(relay, php):
    got = php.run(f"""
        $all = [];
        foreach ([[], ['key' => 'abc'], ['key' => 'abc', 'strict' => true]] as $options) {{
            $relay = new Relay('{relay.url}', $options + ['budget' => 5]);
            $relay->push('42', 1);
            $copy = unserialize(serialize($relay));
            try {{ $all[] = [$copy->push('42', 1) !== null, $copy->lastError()]; }}
            catch (RelayException $e) {{ $all[] = $e->error; }}
        }}
        echo json_encode($all);""")
    assert got[0] == [True, None] and got[2] == "misconfigured"
    assert got[1][0] is False and "make a new Relay" in got[1][1]


@own_only
def test_data_that_json_would_empty_is_refused_or_sent_as_text(relay, connect, php):
    client = connect(relay.url, "silent", "str")
    got = php.run(f"""
        class Text {{ private $text = 'str'; public function __toString() {{ return $this->text; }} }}
        class Hidden {{ private $x = 1; }}
        class Shown {{ public $x = 1; public $in; private $y = 2; }}
        class Json implements JsonSerializable {{
            #[ReturnTypeWillChange]
            public function jsonSerialize() {{ return ['in' => new Text, 'no' => new stdClass]; }}
        }}
        $relay = new Relay('{relay.url}', ['budget' => 5]);
        $shown = new Shown; $shown->in = [new Text];
        $array = new ArrayObject(['a' => new Text]);
        foreach ([new Text, $shown, new Json, $array, new stdClass, [], ['a' => []]] as $data) {{
            $relay->push('silent', $data) or $wrong[] = $relay->lastError();
        }}
        $wrong[] = $relay->push(new Text, 'to a text')['destination'];
        $wrong[] = array_column($relay->push([new Text, 'other'], 'x'), 'destination');
        $yields = (function () {{ yield 1; }})();
        foreach ([fn() => 1, $yields, new Hidden, new SplQueue, $relay] as $data) {{
            foreach ([$data, ['deep' => [$data]], (object) ['deep' => $data]] as $put) {{
                $refused[] = [$relay->push('silent', $put), $relay->lastError()];
            }}
            $refused[] = [$relay->push($data, 1), $relay->lastError()];
            $refused[] = [$relay->push('silent', 1, ['event' => $data]), $relay->lastError()];
        }}
        echo json_encode([$wrong, $refused]);""")
    assert got[0] == ["str", ["str", "other"]]
    assert all(answer is None and error.startswith("invalid_data: this cannot be sent") for answer, error in got[1]), (
        got
    )
    arrived = [message["data"] for _, message in client.wait(9)]
    assert arrived[:4] == ["str", {"x": 1, "in": ["str"]}, {"in": "str", "no": {}}, {"a": "str"}]
    assert arrived[4:7] == [{}, [], {"a": []}] and arrived[7:9] == ["to a text", "x"]


@own_only
def test_wrong_types_of_pushes_and_options_are_named(relay, php):
    got = php.run(f"""
        $relay = new Relay('{relay.url}', ['budget' => 5]);
        $one = ['destination' => '42', 'data' => 'x'];
        foreach (['x', null, 42, new stdClass, $one, [['42', 'x']], ['x']] as $pushes) {{
            $all[] = [$relay->pushMany($pushes), $relay->lastError()];
        }}
        $all[] = [$relay->push('42', 'x', 'order'), $relay->lastError()];
        $yields = (function () {{ yield 'k' => ['destination' => '42', 'data' => 'x']; }})();
        echo json_encode([$all, $relay->pushMany($yields)]);""")
    for answer, error in got[0]:
        refused = [each["error"] for each in answer or {} if "id" not in each]
        assert answer is None or len(refused) == len(answer), answer
        assert "['destination' => '42'" in error or "invalid_options" in error or "unknown_field" in error, error
    assert got[1]["k"]["id"]


# --- Addresses ---


@own_only
def test_an_address_that_ends_with_push_works_too(relay, php):
    for url in (f"{relay.url}/push", f"{relay.url}/push/", f"{relay.url}/"):
        (got,) = php.push(url, "['budget' => 5]")
        assert got["answer"] and got["answer"]["id"], got


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "405 Method Not Allowed", "401 Unauthorized"])
def test_for_the_address_for_browsers_the_error_names_the_one_for_pushes(stranger, php, status):
    site = stranger(says(reply(status, b"<h1>Apache</h1>")))
    (got,) = php.push(f"{site.url}/relay", "['budget' => 5]")
    assert got["error"].startswith(
        f"not_the_relay ({status[:3]}): something other than a relay answered at {site.url}/relay/push"
    )
    assert "browsers" in got["error"] and "http://127.0.0.1:8080" in got["error"]


# --- The breaker ---


@pytest.mark.parametrize("store", ["apcu", "file"])
def test_a_relay_is_tried_again_after_half_a_second_and_the_reason_is_kept(stranger, php, store):
    got = php.run(
        """
        $relay = new Relay('http://127.0.0.1:1');
        for ($i = 0; $i < 3; $i++) $relay->push('42', 1);
        for ($trial = 0; $trial < 2; $trial++) {
            $start = hrtime(true);
            for ($open = 0; $relay->push('42', 1) || strpos($relay->lastError(), 'breaker_open') === 0; $open++) {
                $last = $relay->lastError();
                usleep(5000);
            }
            $all[] = [(hrtime(true) - $start) / 1e9, $open, $last];
        }
        echo json_encode($all);""",
        *("-d", f"apc.enable_cli={int(store == 'apcu')}"),
    )
    (first, opened, why), (second, _, still) = got
    assert opened and 0.2 < first < 3 and second > 0.9 and second > first, got
    assert "It began with: unreachable: http://127.0.0.1:1 did not answer" in why and "unreachable" in still


def test_an_explicit_cooldown_is_constant_and_pushes_in_progress_do_not_prolong_it(php):
    code = """
        set_error_handler(static fn() => true); // as push() does
        $relay = new Relay('http://127.0.0.1:1', ['cooldown' => 60]);
        $counted = new ReflectionMethod('Relay', 'counted');
        $read = new ReflectionMethod('Relay', 'read');
        foreach ([$counted, $read] as $each) $each->setAccessible(true);
        for ($i = 0; $i < 50; $i++) $counted->invoke($relay, false, 'x');
        $state = $read->invoke($relay);
        echo json_encode([$state % 100, intdiv($state, 100) - (int) (microtime(true) * 1000)]);"""
    failures, left = php.run(code)
    assert failures == 3 and 50_000 < left <= 60_000
    failures, left = php.run(code.replace(", ['cooldown' => 60]", "").replace("127.0.0.1:1", "127.0.0.1:2"))
    assert failures == 3 and left <= 500


# --- The file itself ---


def test_two_copies_in_one_request_and_a_class_of_the_same_name_do_no_harm(php, tmp_path):
    other = tmp_path / "other" / "Relay.php"
    other.parent.mkdir()
    shutil.copy(CLIENT, other)
    for flags in ([], ["-d", "opcache.enable_cli=1"]):
        got = php.run(
            f"""
            require_once '{other}';
            require '{other}';
            use PushRelay\\Relay as Mine;
            $relay = new Relay('http://127.0.0.1:1', ['strict' => true]);
            try {{ $relay->push('42', 1); }}
            catch (PushRelay\\RelayException $e) {{ $both = $e instanceof RelayException; }}
            echo json_encode([get_class($relay), new Mine('http://x') instanceof Relay, $both]);""",
            *flags,
        )
        assert got == ["PushRelay\\Relay", True, True]
    script = tmp_path / "taken.php"
    script.write_text(
        f"<?php class Relay {{}} class RelayException {{}} require '{CLIENT}'; require '{other}';"
        "echo get_class(new PushRelay\\Relay('http://x')), get_parent_class('PushRelay\\RelayException');"
        "echo get_class(new Relay);"
    )
    ran = subprocess.run(["php", script], capture_output=True, text=True)
    assert ran.stdout == "PushRelay\\RelayRuntimeExceptionRelay", ran
    for taken in ("interface Relay {} interface RelayException {}", "trait Relay {} trait RelayException {}"):
        script.write_text(
            f"<?php {taken} $before = get_defined_vars(); require '{CLIENT}'; unset($before['before']);"
            "echo get_class(new PushRelay\\Relay('http://x')), json_encode(array_keys(get_defined_vars()));"
        )
        ran = subprocess.run(["php", script], capture_output=True, text=True)
        assert ran.stdout.startswith("PushRelay\\Relay[") and ran.stderr == "" and '"name"' not in ran.stdout, ran


def test_composer_finds_both_classes_and_a_version_that_matches_any_constraint():
    package = json.loads((ROOT / "php" / "composer.json").read_text())
    assert package["autoload"]["psr-4"] == {"PushRelay\\": ""} and package["autoload"]["classmap"] == ["Relay.php"]
    assert package["version"].count(".") == 2
