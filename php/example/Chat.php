<?php
if (!defined('IN_CHAT')) { // a browser requested this file directly
    http_response_code(404);
    exit;
}

/** The chat's messages and the sessions in it, in two files of JSON lines. A real site would use a database. */
class Chat
{
    private const KEPT = 200; // messages; the oldest are dropped when there are twice as many
    private const AWAY = 12 * 3600; // seconds after which an inactive session no longer receives messages

    private $folder;

    public function __construct(string $folder)
    {
        if (!is_dir($folder) && !mkdir($folder, 0700, true) && !is_dir($folder)) {
            throw new RuntimeException("cannot create the folder $folder: set another one as data in config.php");
        }
        // In the shared temporary folder, another user may have created it to read who is logged in.
        $owner = lstat($folder)['uid'];
        if (function_exists('posix_geteuid') && !in_array($owner, [0, posix_geteuid()], true)) {
            throw new RuntimeException("the folder $folder belongs to another user: set another as data in config.php");
        }
        $this->folder = $folder;
    }

    /** Keep a message and return it as browsers get it. Its id is one higher than that of the message before. */
    public function say(string $author, string $name, string $text): array
    {
        return $this->change('messages', static function (array &$messages) use ($author, $name, $text): array {
            $last = end($messages);
            $message = ['id' => $last ? $last['id'] + 1 : 1, 'name' => $name, 'text' => $text, 'time' => time()];
            $message['author'] = $author; // two people may have the same name
            $message['hue'] = crc32($name) % 6; // a color for each name
            $messages[] = $message;
            if (count($messages) > 2 * self::KEPT) {
                $messages = array_slice($messages, -self::KEPT);
            }
            return $message;
        });
    }

    /** Return the last messages after the one with this id. */
    public function since(int $id): array
    {
        $messages = $this->change('messages', static function (array &$messages): array {
            return $messages;
        });
        return array_slice(array_values(array_filter($messages, static fn($message) => $message['id'] > $id)), -self::KEPT);
    }

    /** Note that a session is here (or, with false, gone). Return those that are here, at most 1,000, as a push may have. */
    public function sessions(string $session, bool $here = true): array
    {
        $all = $this->change('sessions', static function (array &$all) use ($session, $here): array {
            $all = array_filter($all, static fn($each) => $each['id'] !== $session && $each['time'] > time() - self::AWAY);
            if ($here) {
                $all[] = ['id' => $session, 'time' => time()];
            }
            return $all;
        });
        return array_slice(array_column($all, 'id'), -1000);
    }

    /** Read a file of one row per line, and write it if $change changed the rows. Return the result of $change. */
    private function change(string $name, callable $change): array
    {
        $file = fopen("{$this->folder}/$name.jsonl", 'c+');
        if (!$file || !flock($file, LOCK_EX)) {
            throw new RuntimeException("cannot write {$this->folder}/$name.jsonl: set another as data in config.php");
        }
        $lines = array_filter(explode("\n", (string) stream_get_contents($file)));
        $before = $rows = array_map(static fn($line) => json_decode($line, true), $lines);
        $result = $change($rows);
        if ($rows !== $before) {
            ftruncate($file, 0);
            rewind($file);
            fwrite($file, implode('', array_map(static fn($row) => json_encode($row) . "\n", $rows)));
        }
        fclose($file);
        return $result;
    }
}
