<?php
if (!defined('IN_CHAT')) { // a browser asked for this file itself
    http_response_code(404);
    exit;
}

/** The chat's messages, and who is in it: two files of JSON lines. A real site has a database in this place. */
class Chat
{
    private const KEPT = 200;      // messages; twice as many before the oldest go
    private const AWAY = 12 * 3600; // seconds after which somebody who did nothing is not told of messages any more

    private $folder;

    public function __construct(string $folder)
    {
        if (!is_dir($folder) && !mkdir($folder, 0700, true) && !is_dir($folder)) {
            throw new RuntimeException("the folder $folder cannot be made: say another one in config.php, data");
        }
        // Among everybody's temporary files another user may have laid it there, to read who is logged in.
        $owner = lstat($folder)['uid'];
        if (function_exists('posix_geteuid') && !in_array($owner, [0, posix_geteuid()], true)) {
            throw new RuntimeException("the folder $folder is another user's: say another one in config.php, data");
        }
        $this->folder = $folder;
    }

    /** Keeps a message and returns it as the browsers get it. Its id grows by one with each. */
    public function say(string $author, string $name, string $text): array
    {
        return $this->change('messages', static function (array &$messages) use ($author, $name, $text): array {
            $last = end($messages);
            $message = ['id' => $last ? $last['id'] + 1 : 1, 'name' => $name, 'text' => $text, 'time' => time()];
            $message['author'] = $author; // two people may have the same name
            $message['hue'] = crc32($name) % 6; // a colour for each name
            $messages[] = $message;
            if (count($messages) > 2 * self::KEPT) {
                $messages = array_slice($messages, -self::KEPT);
            }
            return $message;
        });
    }

    /** The last messages after the one with this id. */
    public function since(int $id): array
    {
        $messages = $this->change('messages', static function (array &$messages): array {
            return $messages;
        });
        return array_slice(array_values(array_filter($messages, static fn($message) => $message['id'] > $id)), -self::KEPT);
    }

    /** Notes that a session is here (or, with false, gone); returns those that are, at most as many as one push may name. */
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

    /** Reads a file, one row a line, and writes it where $change changed the rows; returns what that returned. */
    private function change(string $name, callable $change): array
    {
        $file = fopen("{$this->folder}/$name.jsonl", 'c+');
        if (!$file || !flock($file, LOCK_EX)) {
            throw new RuntimeException("{$this->folder}/$name.jsonl cannot be written: see config.php, data");
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
