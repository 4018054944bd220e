<?php
/**
 * A chat in plain PHP. The session has the user's name, a form sends the message, and PHP keeps it and pushes it to all
 * browsers. If the relay is down, the form still works, and pages ask PHP for new messages.
 */

const IN_CHAT = true; // only this file may include the others
$config = require __DIR__ . '/config.php';
require_once is_file(__DIR__ . '/Relay.php') ? __DIR__ . '/Relay.php' : dirname(__DIR__) . '/Relay.php';
require __DIR__ . '/Chat.php';

const ROOM = 'chat'; // the destination that everybody's page listens to
const DAY = 86400;
const GONE = 'You are no longer logged in. Load the page again.';

if ($config['cookie'] !== '') {
    session_name($config['cookie']);
}
session_set_cookie_params(['httponly' => true, 'samesite' => 'Lax', 'secure' => !empty($_SERVER['HTTPS'])]);
session_start();
$_SESSION['csrf'] = $_SESSION['csrf'] ?? bin2hex(random_bytes(16));
$csrf = $_SESSION['csrf'];
$name = $_SESSION['name'] ?? '';
$author = $_SESSION['author'] = $_SESSION['author'] ?? bin2hex(random_bytes(8)); // not the session id, which is secret

$chat = new Chat($config['data']);
$relay = new Relay($config['relay'], ['key' => $config['key'], 'secret' => $config['secret']]);
$base = rtrim(str_replace('\\', '/', dirname($_SERVER['SCRIPT_NAME'])), '/') . '/'; // wherever the web server has this folder
$wantsJson = strpos($_SERVER['HTTP_ACCEPT'] ?? '', 'application/json') !== false;

function h(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

/** Return a value as JSON for a script element, which nothing in it can end. */
function js($value): string
{
    return json_encode($value, JSON_HEX_TAG | JSON_HEX_AMP | JSON_HEX_APOS | JSON_HEX_QUOT | JSON_INVALID_UTF8_SUBSTITUTE);
}

function json($value, int $status = 200): void
{
    http_response_code($status);
    header('Content-Type: application/json');
    header('Cache-Control: no-store');
    exit(js($value));
}

/** Return a form's text of 1 to $most characters, or ''. */
function field(string $field, int $most): string
{
    $text = $_POST[$field] ?? '';
    return is_string($text) && preg_match("/^.{1,$most}$/us", trim($text)) ? trim($text) : '';
}

/** Keep a message and push it. Return it; `live` is whether the relay accepted it. */
function publish(Chat $chat, Relay $relay, array $config, string $author, string $name, string $text): array
{
    // An open session is locked, so other pages of this browser would wait for the relay.
    $session = session_id();
    session_write_close();
    $message = $chat->say($author, $name, $text);
    $to = $config['cookie'] !== '' ? $chat->sessions($session) : ROOM;
    $live = $relay->push($to, $message, ['event' => 'message']) !== null;
    if (!$live) {
        error_log('chat: ' . $relay->lastError());
    }
    return $message + ['live' => $live];
}

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    if (!hash_equals($csrf, is_string($_POST['csrf'] ?? null) ? $_POST['csrf'] : '')) {
        $wantsJson ? json(['message' => 'This page is too old. Load it again.'], 403) : http_response_code(403);
        exit('This page is too old. Go back and load it again.');
    }
    if (isset($_POST['logout'])) {
        $chat->sessions(session_id(), false);
        session_destroy();
        setcookie(session_name(), '', 1, '/');
    } elseif (isset($_POST['name']) && ($name = field('name', 30)) !== '') {
        session_regenerate_id(true); // so that a session id from before the login is useless
        $_SESSION['name'] = $name;
    } elseif ($name !== '' && ($text = field('text', 1000)) !== '') {
        $message = publish($chat, $relay, $config, $author, $name, $text);
        $wantsJson && json($message);
    } elseif ($wantsJson) {
        json(['message' => $name === '' ? GONE : 'Write 1 to 1,000 characters.'], 400);
    }
    header("Location: $base", true, 303); // so that reloading the page does not send the message again
    exit;
}

if ($name === '') {
    if ($wantsJson) {
        json(['message' => GONE], 403);
    }
    $messages = [];
} else {
    $messages = $chat->since((int) ($_GET['since'] ?? 0));
    if ($wantsJson) {
        json($messages);
    }
    $listen = ['id' => ROOM];
    if ($config['cookie'] !== '') {
        $chat->sessions(session_id());
        $listen['id'] = 'me'; // the relay recognizes the session by its cookie
    } elseif ($config['secret'] !== '') {
        $listen['token'] = $relay->token(['ids' => [ROOM], 'exp' => time() + DAY]);
    }
}

$public = rtrim($config['relay_public'], '/') . '/';
$origin = preg_match('~^https?://[^/\s;,]+~', $public, $match) ? $match[0] : '';
$sources = $origin === '' ? '' : " $origin";
$sockets = $origin === '' ? '' : ' ' . preg_replace('/^http/', 'ws', $origin);
header("Content-Security-Policy: default-src 'self'; img-src data:; script-src 'self'$sources; "
    . "connect-src 'self'$sources$sockets; base-uri 'none'; form-action 'self'; frame-ancestors 'none'");
header('Cache-Control: no-store');
header('Content-Type: text/html; charset=utf-8');
require __DIR__ . '/page.php';
