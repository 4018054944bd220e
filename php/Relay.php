<?php
/**
 * The relay's PHP client (MIT): docs/php.md. One file, PHP 7.4 and later, cURL where it is there and streams where not.
 *
 *     $relay = new Relay('http://127.0.0.1:8080');
 *     $relay->push('42', ['text' => 'hello']) or error_log($relay->lastError());
 *
 * The classes are PushRelay\Relay and PushRelay\RelayException, and also Relay and RelayException if no others have these
 * names. Two copies of this file may be loaded: the first one counts.
 */

namespace PushRelay;

if (!\class_exists(Relay::class, false)) {
    /** What went wrong: getMessage() in words, getCode() the HTTP status (0: there was no answer). */
    class RelayException extends \RuntimeException
    {
        /** @var string one word for programs: the relay's own (`missing_key`), or `unreachable`, `timeout`, `breaker_open` … */
        public $error;
        /** @var bool the relay is away, and not just unwilling: such a push is tried again, and the breaker counts it */
        public $away;
        /** @var float|null seconds after which it wants to be asked again */
        public $retryAfter;

        public function __construct(string $error, string $message, int $status = 0, bool $away = false, ?float $after = null)
        {
            parent::__construct($message, $status);
            $this->error = $error;
            $this->away = $away;
            $this->retryAfter = $after;
        }
    }

    class Relay
    {
        private const OPTIONS = [
            'key' => '',            // one of the relay's push_keys; programs on its own machine need none
            'secret' => '',         // the relay's secret, for token()
            'budget' => 0.3,        // seconds that a push may take in all
            'strict' => false,      // true: throw a RelayException where null would be returned
            'cooldown' => null,     // seconds that a relay is left alone after FAILURES: see COOLDOWNS; 0: no breaker
            'ca_file' => '',        // the certificate authority to trust for https, instead of the system's
            'transport' => 'auto',  // curl, streams
        ];
        private const SECRETS = ['key' => '', 'secret' => ''];
        private const FAILURES = 3;
        private const COOLDOWNS = [0.5, 1.0, 2.0, 4.0, 5.0]; // seconds: the next one after each failed trial
        private const MAX_WAIT = 30;            // seconds: the relay's own limit
        private const MAX_BATCH = 1000;         // publications in a request: the relay's own limit
        private const MAX_BATCH_BYTES = 900000; // the relay's max_body is a million, unless it is set otherwise
        private const MAX_ANSWER = 4000000;     // bytes: whatever answers there, it must not fill the page's memory
        private const MAX_REASON = 300;         // bytes of the first failure that are kept while the breaker is open
        private const MAX_DEPTH = 120;          // levels of data that are looked at; the relay takes 100
        private const MAX_SOCKET_PATH = 107;    // bytes, the kernel's own limit
        private const TOO_MANY_WAIT = 11;       // EAGAIN, if a Unix socket's queue is full
        // All functions that a transport calls: hosts disable single ones (disable_functions in php.ini).
        private const CURL = ['curl_init', 'curl_setopt_array', 'curl_exec', 'curl_getinfo', 'curl_error', 'curl_errno'];
        private const STREAMS = [
            'stream_socket_client', 'stream_context_create', 'stream_set_blocking', 'stream_select', 'fwrite', 'fread', 'feof',
        ];

        /** @var array[] key and secret of each object: not in it, where var_export(), serialize() and dumps look */
        private static $secrets = [];

        private $options;               // without SECRETS
        private $mine = 0;              // of this object in $secrets; objects with the same ones share them
        private $transport = '';        // curl or streams
        private $url;                   // without a slash at the end
        private $scheme = '';           // http, https or unix
        private $host = '';             // name and port, or the path of the Unix socket
        private $path = '/push';
        private $misconfigured = '';    // why no push can be sent
        private $lastError = null;
        private $curl = null;
        private $curlOwner = 0;         // the process that made it: a child must not talk on its parent's connection
        private $warning = '';          // what PHP said last while a push was on its way
        private $start = 0.0;           // of this push, by now(); then until when it may connect, and until when it may take
        private $connectBy = 0.0;
        private $deadline = 0.0;
        private $isTrial = false;       // this push is the one that tries whether a relay is back

        /** $url: `http://127.0.0.1:8080`, `https://example.com/relay` or `unix:/run/relay.sock`. Options: see OPTIONS. */
        public function __construct(
            string $url,
            #[\SensitiveParameter]
            array $options = []
        ) {
            $this->url = $url;
            $this->options = $options + self::OPTIONS;
            try {
                $this->misconfigured = $this->configure();
            } catch (\Throwable $e) { // a function that is disabled
                $this->misconfigured = self::known($e)->getMessage();
            }
            $this->hideSecrets();
            if ($this->misconfigured !== '' && $this->options['strict']) {
                throw new RelayException('misconfigured', $this->misconfigured);
            }
        }

        /** What print_r(), var_dump() and error pages show. */
        public function __debugInfo(): array
        {
            $shown = [];
            foreach (self::$secrets[$this->mine] as $name => $value) {
                $shown[$name] = $value === '' ? '' : '(hidden)';
            }
            return ['url' => $this->url, 'options' => $shown + $this->options, 'lastError' => $this->lastError];
        }

        /** The key and the secret are left out, and so is the connection. */
        public function __serialize(): array
        {
            return ['url' => $this->url, 'options' => $this->options, 'hadKey' => self::$secrets[$this->mine]['key'] !== ''];
        }

        public function __unserialize(array $data): void
        {
            $this->__construct((string) $data['url'], ['strict' => false] + $data['options']);
            $this->options['strict'] = $data['options']['strict'];
            if ($data['hadKey']) {
                $this->misconfigured = 'serialize() leaves out the key, so this copy cannot push: make a new Relay';
            }
        }

        /**
         * Push to a destination or a list of them. Takes `budget` seconds at most, and those of `wait` on top.
         *
         * @param string|int|array $destination
         * @param mixed            $data    any JSON value; `new stdClass` is the empty object
         * @param array            $options event, ttl, id, wait, except: docs/http-api.md. Those that are null count as not given.
         * @return array|null the relay's answer (for a list of destinations a list); null: lastError() says why
         */
        public function push($destination, $data, $options = []): ?array
        {
            return $this->guarded(function () use ($destination, $data, $options) {
                if (!is_array($options)) {
                    throw new RelayException('invalid_options', "options are an array, such as ['event' => 'order']");
                }
                $fields = self::fields(['destination' => $destination, 'data' => $data] + $options);
                $wait = is_numeric($fields['wait'] ?? null) ? max(0, min(self::MAX_WAIT, (float) $fields['wait'])) : 0;
                $destination = $fields['destination'] ?? null;
                return $this->ask(self::json($fields), static fn($answer) => self::isAnswer($answer, $destination), $wait);
            });
        }

        /**
         * Push many at once, each an array of destination, data and push()'s options but for `wait`. They go out as requests of
         * 1,000 publications, all within one budget. Each is answered under its own key; one that was not taken with `error`
         * and `message`, and then lastError() gives their number.
         *
         * @param iterable $pushes
         * @return array|null null: no request was answered
         */
        public function pushMany($pushes): ?array
        {
            return $this->guarded(function () use ($pushes) {
                $each = "an array: ['destination' => '42', 'data' => 'hello']";
                if (!is_iterable($pushes)) {
                    throw new RelayException('invalid_pushes', "pushMany() takes a list of pushes, each of them $each");
                }
                $answers = $items = $destinations = [];
                $first = null;
                foreach ($pushes as $key => $push) {
                    $answers[$key] = null; // in their order
                    try {
                        if (!is_array($push) && !$push instanceof \stdClass) {
                            throw new RelayException('invalid_push', "each push of pushMany() is $each");
                        }
                        $fields = self::fields((array) $push);
                        $items[$key] = self::json($fields);
                        $destinations[$key] = $fields['destination'] ?? null;
                    } catch (\Throwable $e) { // also of the data's own jsonSerialize(): the others go out
                        $e = self::known($e);
                        $first = $first ?? $e;
                        $answers[$key] = self::refusal($e);
                    }
                }
                $answered = $away = false;
                foreach (self::batches($items, $destinations) as $batch) {
                    $to = array_map(static fn($key) => $destinations[$key], array_keys($batch));
                    try {
                        $body = '[' . implode(',', $batch) . ']';
                        $got = $away ? [] : $this->ask($body, static fn($answer) => self::isBatchAnswer($answer, $to));
                        $answered = $answered || $got;
                    } catch (RelayException $e) {
                        $first = $first ?? $e;
                        $away = $e->away; // it has had its retry
                        $got = array_fill(0, count($batch), self::refusal($e));
                    }
                    foreach (array_keys($batch) as $i => $key) {
                        $answers[$key] = $got[$i] ?? ['error' => 'not_answered', 'message' => 'the request before it failed'];
                    }
                }
                if (!$answered && $first) {
                    throw $first;
                }
                $this->lastError = self::summary($answers);
                return $answers;
            });
        }

        /**
         * A token for relay.js: which ids a page may register (`ids`) and push to (`push`), until when (`exp`, in seconds since 1970).
         * Unlike a push it throws where it cannot be made, strict or not: a page with a wrong token would only fail later.
         */
        public function token(array $claims): string
        {
            $secret = self::$secrets[$this->mine]['secret'];
            if ($secret === '') {
                throw new RelayException('no_secret', "give the option secret: the relay's own setting secret");
            }
            if (!isset($claims['ids']) && !isset($claims['push'])) {
                throw new RelayException('invalid_claims', "say what the token is for: 'ids' => ['42', 'news-*'], or 'push'");
            }
            if (!is_int($claims['exp'] ?? null)) {
                throw new RelayException('invalid_claims', "say until when the token counts: 'exp' => time() + 3600");
            }
            foreach (array_intersect_key($claims, ['ids' => 1, 'push' => 1]) as $name => $ids) {
                $ids = is_array($ids) ? array_values($ids) : [$ids]; // one id is a list too, 42 is "42"
                if (array_filter($ids, static fn($id) => !is_int($id) && (!is_string($id) || $id === ''))) {
                    throw new RelayException('invalid_claims', "each of '$name' is a text or a whole number: ['42', 'news-*']");
                }
                $claims[$name] = array_map('strval', $ids);
            }
            $signed = self::base64url('{"alg":"HS256","typ":"JWT"}') . '.' . self::base64url(self::json($claims));
            return $signed . '.' . self::base64url(hash_hmac('sha256', $signed, $secret, true));
        }

        /** Why the last push() or pushMany() was not taken, and what to do: a word, a colon, a sentence. Null where all is well. */
        public function lastError(): ?string
        {
            return $this->lastError;
        }

        // --- What is asked for ---

        /** Reads the options and the URL; returns what is wrong with them, or ''. */
        private function configure(): string
        {
            $unknown = array_diff_key($this->options, self::OPTIONS);
            if ($unknown) {
                return 'there is no option ' . key($unknown) . '; the options are ' . implode(', ', array_keys(self::OPTIONS));
            }
            $options = &$this->options;
            foreach (['budget', 'cooldown'] as $name) {
                if ($name === 'cooldown' && $options[$name] === null) {
                    continue;
                }
                if (!is_numeric($options[$name]) || !($options[$name] >= 0 && $options[$name] <= 60)) { // so not NAN either
                    return "$name is a number of seconds, 60 at most";
                }
            }
            if (PHP_INT_SIZE < 8) {
                $options['cooldown'] = 0.0; // the breaker's number has 18 digits
            }
            foreach (['key', 'secret', 'ca_file'] as $name) {
                if (!is_scalar($options[$name] ?? '')) {
                    $options[$name] = '';
                    return "$name is a text";
                }
                $options[$name] = (string) $options[$name]; // what getenv() did not find is false
            }
            if (preg_match('/[^\x21-\x7e]/', $options['key'])) {
                return 'the key holds a space, a line break or a letter that no key has';
            }
            if (!in_array($options['transport'], ['auto', 'curl', 'streams'], true)) {
                return 'transport is auto, curl or streams';
            }
            return $this->readUrl() ?: $this->chooseTransport();
        }

        private function readUrl(): string
        {
            $this->url = rtrim($this->url, '/');
            if (preg_match('~^https?://.*/push$~iD', $this->url)) { // the address of a push in place of the relay's
                $this->url = substr($this->url, 0, -strlen('/push'));
            }
            if (preg_match('~^(https?)://((?:\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::\d+)?)(/[^\s?#]*)?$~iD', $this->url, $url)) {
                $this->scheme = strtolower($url[1]);
                $this->host = $url[2];
                $this->path = ($url[3] ?? '') . '/push';
            } elseif (preg_match('~^unix:(?://)?(/[^\0]+)$~D', $this->url, $url)) {
                $this->scheme = 'unix';
                $this->host = $url[1];
            } else {
                $shown = preg_replace(['~//.*@~s', '~\?.*~s'], ['//...@', '?...'], $this->url); // without what may be secret
                $shown = addcslashes(substr($shown, 0, 100), "\0..\37'\177..\377");
                return "the relay's address is http://HOST:PORT, https://HOST/PATH or unix:/PATH/OF/A.SOCK, not '$shown'";
            }
            if ($this->scheme === 'unix' && strlen($this->host) > self::MAX_SOCKET_PATH) {
                $most = self::MAX_SOCKET_PATH;
                return "the path of a Unix socket has at most $most bytes: choose a shorter one, also in the relay's setting host";
            }
            return '';
        }

        /** cURL if all of its functions can be called, else streams. Returns what keeps both from working, or ''. */
        private function chooseTransport(): string
        {
            $streams = $this->scheme === 'https' ? array_merge(self::STREAMS, ['stream_socket_enable_crypto']) : self::STREAMS;
            $disabled = [];
            foreach (['curl' => self::CURL, 'streams' => $streams] as $transport => $functions) {
                if (!in_array($this->options['transport'], [$transport, 'auto'], true)) {
                    continue;
                }
                $missing = array_filter($functions, static fn($function) => !function_exists($function));
                if (!$missing) {
                    $this->transport = $transport;
                    return '';
                }
                $disabled[] = "$transport needs " . implode('(), ', $missing) . '()';
            }
            $help = 'take them out of disable_functions in php.ini, or install the extension';
            return 'PHP can call no relay here: ' . implode(', and ', $disabled) . ": $help";
        }

        /** Moves key and secret out of the object. No function is called here: any of them may be disabled. */
        private function hideSecrets(): void
        {
            $pair = self::SECRETS;
            foreach ($pair as $name => $none) {
                $value = $this->options[$name] ?? $none;
                $pair[$name] = $value === (array) $value || $value === (object) $value ? $none : (string) $value;
                unset($this->options[$name]);
            }
            $i = -1;
            foreach (self::$secrets as $i => $known) {
                if ($known === $pair) {
                    $this->mine = $i;
                    return;
                }
            }
            self::$secrets[] = $pair;
            $this->mine = $i + 1;
        }

        private static function fields(array $push): array
        {
            $push = self::plain($push);
            $destination = $push['destination'] ?? null;
            if (is_array($destination) || is_object($destination)) { // an enum, say: its value is what the relay reads
                $list = is_array($destination) ? array_values($destination) : $destination;
                $push['destination'] = json_decode(self::json([$list]))[0];
            }
            $data = array_key_exists('data', $push) ? ['data' => $push['data']] : []; // null is data
            // The id makes a push that is sent again the same push.
            return $data + array_filter($push, static fn($value) => $value !== null) + ['id' => self::newId()];
        }

        private static function newId(): string
        {
            if (function_exists('random_bytes')) {
                return bin2hex(random_bytes(16));
            }
            return mt_rand() . '-' . mt_rand() . '-' . mt_rand() . '-' . (int) (self::now() * 1e6);
        }

        /** A value in which each object is what JSON makes of it. Throws for those that would silently arrive as {}. */
        private static function plain($value, int $depth = 0)
        {
            if ($depth > self::MAX_DEPTH || (!is_array($value) && !is_object($value))) {
                return $value;
            }
            if ($value instanceof \JsonSerializable) {
                $json = $value->jsonSerialize();
                return $json === $value ? $value : self::plain($json, $depth + 1);
            }
            if ($value instanceof \ArrayObject || $value instanceof \ArrayIterator) {
                return (object) self::plain($value->getArrayCopy(), $depth + 1);
            }
            $members = is_array($value) ? $value : get_object_vars($value);
            $isSpecial = $value instanceof self || $value instanceof \UnitEnum || !$members;
            if (is_object($value) && !$value instanceof \stdClass && $isSpecial) {
                return self::plainObject($value);
            }
            $plain = [];
            foreach ($members as $name => $member) {
                $plain[$name] = self::plain($member, $depth + 1);
            }
            return is_array($value) ? $plain : (object) $plain;
        }

        /** The same for an object without public properties. */
        private static function plainObject($object)
        {
            $is = get_class($object);
            if ($object instanceof \Closure) {
                throw new RelayException('invalid_data', 'this cannot be sent: a Closure is in it. Send what it returns');
            }
            if ($object instanceof \Traversable) {
                throw new RelayException('invalid_data', "this cannot be sent: a $is is in it. Send iterator_to_array() of it");
            }
            if (method_exists($object, '__toString')) {
                return (string) $object;
            }
            if (json_encode($object) === '{}') {
                $help = 'Send an array, or have the class implement JsonSerializable';
                throw new RelayException('invalid_data', "this cannot be sent: a $is has no public properties. $help");
            }
            return $object; // a DateTime or an enum, say: JSON has its value
        }

        private static function json(array $value): string
        {
            try {
                return json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
            } catch (\JsonException $e) {
                $said = [
                    JSON_ERROR_UTF8 => 'a text in it is not UTF-8: convert it, as with iconv("ISO-8859-1", "UTF-8", $text)',
                    JSON_ERROR_INF_OR_NAN => 'a number in it is infinite or not a number (NAN), which JSON does not have',
                    JSON_ERROR_DEPTH => 'it is nested too deeply',
                    JSON_ERROR_RECURSION => 'it contains itself',
                ];
                $why = $said[$e->getCode()] ?? $e->getMessage();
                throw new RelayException('invalid_data', "this cannot be sent: $why");
            }
        }

        /** Cuts items (key => JSON) into what fits one request. */
        private static function batches(array $items, array $destinations): iterable
        {
            $batch = [];
            $publications = $bytes = 0;
            foreach ($items as $key => $item) {
                $cost = is_array($destinations[$key]) ? count($destinations[$key]) : 1;
                $publications += $cost;
                $bytes += strlen($item) + 1;
                if ($batch && ($publications > self::MAX_BATCH || $bytes > self::MAX_BATCH_BYTES)) {
                    yield $batch;
                    $batch = [];
                    [$publications, $bytes] = [$cost, strlen($item) + 1];
                }
                $batch[$key] = $item;
            }
            if ($batch) {
                yield $batch;
            }
        }

        private static function known(\Throwable $e): RelayException
        {
            if ($e instanceof RelayException) {
                return $e;
            }
            $said = $e->getMessage();
            try {
                $isDisabled = $e instanceof \Error && strpos($said, 'Call to undefined function') === 0;
                $said = $isDisabled ? $said : get_class($e) . ": $said";
            } catch (\Error $another) { // these are functions as well
                $isDisabled = true;
            }
            $help = '. Take it out of disable_functions in php.ini, or install its extension';
            $word = $isDisabled ? 'function_disabled' : 'unexpected';
            return new RelayException($word, $isDisabled ? $said . $help : $said);
        }

        /** Whether a relay may have sent this answer to a push: an id for each destination, as a list if they were a list. */
        private static function isAnswer($answer, $destination): bool
        {
            if (!is_array($destination)) {
                $is = is_array($answer) && is_string($answer['id'] ?? null) && $answer['id'] !== '';
                return $is && ($answer['destination'] ?? null) === self::named($destination);
            }
            $names = array_values(array_unique(array_map([self::class, 'named'], $destination))); // one named twice gets it once
            return $names && self::isEach($answer, $names, [self::class, 'isAnswer']);
        }

        /** The same for a batch, in which a push may be refused by itself. */
        private static function isBatchAnswer($answer, array $destinations): bool
        {
            return self::isEach($answer, $destinations, static function ($each, $destination): bool {
                return self::isRefusal($each) || self::isAnswer($each, $destination);
            });
        }

        private static function isEach($answer, array $destinations, callable $is): bool
        {
            if (!is_array($answer) || array_keys($answer) !== array_keys($destinations)) {
                return false;
            }
            foreach ($destinations as $i => $destination) {
                if (!$is($answer[$i], $destination)) {
                    return false;
                }
            }
            return true;
        }

        /** A destination as the relay writes it in its answer: 42 and 42.0 are "42". Null: no relay takes such a one. */
        private static function named($destination): ?string
        {
            if (is_float($destination)) {
                return sprintf('%.0f', $destination + 0.0); // not "-0"
            }
            return is_int($destination) || is_string($destination) ? (string) $destination : null;
        }

        private static function isRefusal($answer): bool
        {
            $error = is_array($answer) ? $answer['error'] ?? null : null; // a word, unlike the "Not Found" of other programs
            return is_string($error) && preg_match('/^[a-z_]+$/D', $error) && is_string($answer['message'] ?? null);
        }

        private static function refusal(RelayException $e): array
        {
            return ['error' => $e->error, 'message' => $e->getMessage()];
        }

        private static function summary(array $answers): ?string
        {
            $refused = array_filter($answers, static fn($answer) => isset($answer['error']));
            if (!$refused) {
                return null;
            }
            $first = reset($refused);
            $count = count($refused) . ' of ' . count($answers);
            return "{$first['error']}: $count pushes were not taken; the first, " . key($refused) . ": {$first['message']}";
        }

        /** Runs what may throw, as the option strict has it. */
        private function guarded(callable $work): ?array
        {
            $this->lastError = null;
            try {
                $this->start = self::now();
                if ($this->misconfigured !== '') {
                    throw new RelayException('misconfigured', $this->misconfigured);
                }
                return $work();
            } catch (\Throwable $e) { // the data's own jsonSerialize(), say
                $error = self::known($e);
            }
            $status = $error->getCode() ? " ({$error->getCode()})" : '';
            $this->lastError = "{$error->error}$status: {$error->getMessage()}";
            if ($this->options['strict']) {
                throw $error;
            }
            return null;
        }

        // --- The way there and back ---

        /**
         * Sends a body, with one retry, and returns the answer. `$isAnswer` returns whether a relay may have sent it. `$wait`:
         * seconds that the relay may take on top of the budget.
         */
        private function ask(string $body, callable $isAnswer, float $wait = 0): array
        {
            $this->connectBy = $this->start + $this->options['budget'];
            $this->deadline = $this->connectBy + $wait;
            // Not "@": handlers of frameworks throw all the same, and nothing of this belongs into the page.
            $isHandled = function_exists('set_error_handler') && function_exists('restore_error_handler');
            if ($isHandled) {
                set_error_handler(function (int $level, string $said): bool {
                    $this->warning = $said;
                    return true;
                });
            }
            try {
                if (!$this->mayAsk()) {
                    $failed = "{$this->url} failed " . self::FAILURES . ' times in a row or more, so it is left alone for a moment';
                    $why = $this->firstReason();
                    $why = $why === '' ? '' : ". It began with: $why";
                    throw new RelayException('breaker_open', "$failed; this push was not sent$why");
                }
                try {
                    $answer = $this->tried($body, $isAnswer);
                } catch (RelayException $e) {
                    $this->count(!$e->away, "{$e->error}: {$e->getMessage()}");
                    throw $e;
                }
                $this->count(true);
                return $answer;
            } finally {
                if ($isHandled) {
                    restore_error_handler();
                }
            }
        }

        private function tried(string $body, callable $isAnswer): array
        {
            try {
                return $this->sent($body, $isAnswer);
            } catch (RelayException $e) {
                $pause = $e->retryAfter ?? mt_rand(10, 40) / 1000; // of many pages that failed at once, each comes again alone
                if (!$e->away || self::now() + $pause + 0.01 > $this->deadline) {
                    throw $e;
                }
                self::rest($pause);
                return $this->sent($body, $isAnswer);
            }
        }

        /** One request. What it throws is `away` where the same push may well be taken a moment later. */
        private function sent(string $body, callable $isAnswer): array
        {
            [$status, $head, $text] = $this->transport === 'curl' ? $this->byCurl($body) : $this->byStreams($body);
            $answer = json_decode($text, true);
            if ($status === 200 && $isAnswer($answer)) {
                return $answer;
            }
            if ($status === 200 && $text === '' && !preg_match('/^Content-Length:[ \t]*0/mi', $head)) {
                $this->fail('the connection broke before the answer was there');
            }
            if ($status === 200 || !self::isRefusal($answer)) {
                $answer = ['error' => 'not_the_relay', 'message' => $this->foreign($status, $head, $text)];
            }
            // Where too many wait already, the relay itself is well.
            $away = in_array($status, [502, 503, 504], true) && $answer['error'] !== 'too_many_waiting';
            throw new RelayException($answer['error'], $answer['message'], $status, $away, self::retryAfter($head));
        }

        /** Not handed from method to method: the arguments of calls are in the traces of exceptions. */
        private function headers(): array
        {
            $headers = ['Content-Type: application/json', 'User-Agent: Relay.php'];
            $key = self::$secrets[$this->mine]['key'];
            return $key === '' ? $headers : array_merge($headers, ["Authorization: Bearer $key"]);
        }

        /** What to do about an answer that no relay sends. */
        private function foreign(int $status, string $head, string $text): string
        {
            if ($status >= 300 && $status < 400 && preg_match('/^Location:[ \t]*([\x21-\x7e]{1,200})/mi', $head, $to)) {
                $help = "Give the relay's own address, such as http://127.0.0.1:8080: it does not redirect";
                return "{$this->url}/push redirects to {$to[1]}. $help";
            }
            $says = substr(trim(preg_replace('/<[^>]*>|[^\x21-\x7e]+/', ' ', substr($text, 0, 2000))), 0, 200);
            $advice = 'Check the address, and that a proxy there passes /push on to a relay that is running. ';
            if ($status >= 400 && $status < 500) {
                $advice = 'Check the address: that for browsers is the web server\'s, and pushes go to the relay\'s own, such as '
                    . 'http://127.0.0.1:8080 on the same machine (settings host and port). ';
            }
            $advice .= 'The answer was: ';
            return "something other than a relay answered at {$this->url}/push. $advice" . ($says === '' ? 'empty' : $says);
        }

        private static function retryAfter(string $head): ?float
        {
            if (!preg_match('/^Retry-After:[ \t]*([^\r\n]+)/mi', $head, $match)) {
                return null;
            }
            return max(0.0, is_numeric($match[1]) ? (float) $match[1] : strtotime($match[1]) - time());
        }

        /** @return array [status, head, body] */
        private function byCurl(string $body): array
        {
            $curl = $this->curlHandle();
            $head = $text = '';
            $now = self::now();
            curl_setopt_array($curl, [
                CURLOPT_POSTFIELDS => $body,
                CURLOPT_HTTPHEADER => array_merge($this->headers(), ['Expect:']), // or large bodies wait for a "100 Continue" first
                CURLOPT_CONNECTTIMEOUT_MS => max(1, (int) (($this->connectBy - $now) * 1000)),
                CURLOPT_TIMEOUT_MS => max(1, (int) (($this->deadline - $now) * 1000)),
                CURLOPT_HEADERFUNCTION => static function ($curl, string $line) use (&$head): int {
                    $head .= $line;
                    return strlen($line);
                },
                CURLOPT_WRITEFUNCTION => static function ($curl, string $piece) use (&$text): int {
                    $text .= $piece;
                    return strlen($text) > self::MAX_ANSWER ? 0 : strlen($piece);
                },
            ]);
            if (curl_exec($curl) === false) {
                if ($this->scheme === 'unix' && curl_errno($curl) === CURLE_COULDNT_CONNECT) {
                    $this->failAtSocket((int) curl_getinfo($curl, CURLINFO_OS_ERRNO), curl_error($curl));
                }
                $this->fail(curl_errno($curl) === CURLE_OPERATION_TIMEDOUT ? null : curl_error($curl));
            }
            return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $head, $text];
        }

        /** @return CurlHandle|resource with what is the same for every push. It is kept, and its connection with it */
        private function curlHandle()
        {
            $process = self::process();
            if ($this->curl !== null && $process !== 0 && $this->curlOwner === $process) {
                return $this->curl;
            }
            $options = [
                CURLOPT_URL => ($this->scheme === 'unix' ? 'http://localhost' : "{$this->scheme}://{$this->host}") . $this->path,
                CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
                CURLOPT_NOSIGNAL => true, // times of less than a second need it
            ];
            if ($this->scheme === 'unix') {
                $options[CURLOPT_UNIX_SOCKET_PATH] = $this->host;
            }
            if ($this->scheme === 'unix' || preg_match('/^(localhost|127\.[\d.]+|\[::1\])(:|$)/i', $this->host)) {
                $options[CURLOPT_PROXY] = ''; // whatever http_proxy says
            }
            if (defined('CURLOPT_QUICK_EXIT')) { // PHP 8.3: a name server that does not answer is not waited for
                $options[CURLOPT_QUICK_EXIT] = true;
            }
            if ($this->options['ca_file'] !== '') {
                $options[CURLOPT_CAINFO] = $this->options['ca_file'];
            }
            $curl = curl_init();
            if (!curl_setopt_array($curl, $options)) { // a ca_file outside open_basedir, say
                throw new RelayException('misconfigured', "cURL does not take its options: {$this->warning}");
            }
            $this->curlOwner = $process;
            return $this->curl = $curl;
        }

        /** @return array [status, head, body] */
        private function byStreams(string $body): array
        {
            $stream = $this->connected();
            $host = $this->scheme === 'unix' ? 'localhost' : $this->host;
            $headers = array_merge($this->headers(), ["Host: $host", 'Content-Length: ' . strlen($body), 'Connection: close']);
            // HTTP/1.0, so that no answer comes in chunks.
            $out = "POST {$this->path} HTTP/1.0\r\n" . implode("\r\n", $headers) . "\r\n\r\n" . $body;
            // If the body cannot be sent, there may be an answer anyway: 413 comes before the body is read.
            while ($out !== '' && ($written = fwrite($stream, $out)) !== false) {
                $out = (string) substr($out, $written);
                if ($out !== '') {
                    $this->await($stream, true);
                }
            }
            $in = $head = '';
            $size = $most = self::MAX_ANSWER;
            while (strlen($in) < $size && !feof($stream)) {
                $piece = (string) fread($stream, 65536);
                $in .= $piece;
                if ($head === '' && ($end = strpos($in, "\r\n\r\n")) !== false) {
                    $head = substr($in, 0, $end + 4);
                    $size = $end + 4 + (preg_match('/^Content-Length:\s*(\d+)/mi', $head, $length) ? (int) $length[1] : $most);
                    $size = min($size, $most);
                } elseif ($piece === '' && !feof($stream)) {
                    $this->await($stream);
                }
            }
            if (!preg_match('~^HTTP/1\.\d (\d{3})~', $head, $status) || (isset($length[1]) && strlen($in) < $size)) {
                $this->fail('the connection broke before the answer was there');
            }
            return [(int) $status[1], $head, (string) substr($in, strlen($head))];
        }

        /** @return resource */
        private function connected()
        {
            $name = preg_replace('/:\d+$/', '', $this->host);
            $tls = ['verify_peer' => true, 'verify_peer_name' => true, 'peer_name' => trim($name, '[]')];
            if ($this->options['ca_file'] !== '') {
                $tls['cafile'] = $this->options['ca_file'];
            }
            $port = $name !== $this->host ? '' : ($this->scheme === 'https' ? ':443' : ':80');
            $to = $this->scheme === 'unix' ? "unix://{$this->host}" : "tcp://{$this->host}$port";
            $left = max(0.001, $this->connectBy - self::now());
            $context = stream_context_create(['ssl' => $tls]);
            $stream = stream_socket_client($to, $number, $said, $left, STREAM_CLIENT_CONNECT, $context);
            if (!$stream) {
                if ($this->scheme === 'unix') {
                    $this->failAtSocket((int) $number, (string) $said);
                }
                $this->fail(self::now() >= $this->connectBy ? null : $said);
            }
            stream_set_blocking($stream, false);
            while ($this->scheme === 'https') {
                $done = stream_socket_enable_crypto($stream, true, STREAM_CRYPTO_METHOD_TLS_CLIENT);
                if ($done === true) {
                    break;
                }
                if ($done === false) {
                    $this->fail($this->warning);
                }
                $this->await($stream);
            }
            return $stream;
        }

        /** Waits until the stream can be read, or written; throws where the time is over before. */
        private function await($stream, bool $toWrite = false): void
        {
            $left = max(0, $this->deadline - self::now());
            [$read, $write, $except] = $toWrite ? [null, [$stream], null] : [[$stream], null, null];
            if (!stream_select($read, $write, $except, (int) $left, (int) (fmod($left, 1) * 1e6))) {
                $this->fail(null);
            }
        }

        /** Throws: what keeps PHP from a Unix socket, and what to do. `$number` is the system's; `$said` its words. */
        private function failAtSocket(int $number, string $said): void
        {
            $trouble = $this->socketTrouble() ?? $said;
            if ($number === self::TOO_MANY_WAIT) {
                $trouble = 'too many connections wait there';
            }
            throw new RelayException('unreachable', "{$this->url} did not answer: $trouble", 0, true);
        }

        private function socketTrouble(): ?string
        {
            $path = $this->host;
            if (function_exists('ini_get') && (string) ini_get('open_basedir') !== '') {
                return null; // PHP may not look
            }
            clearstatcache();
            $folders = [];
            for ($folder = dirname($path); !$folders || $folder !== $folders[0]; $folder = dirname($folder)) {
                array_unshift($folders, $folder);
            }
            foreach ($folders as $folder) {
                if (!is_dir($folder)) {
                    return "there is no folder $folder. Start the relay with the setting host = unix:$path";
                }
                if (!is_executable($folder)) {
                    return "permission denied: PHP's user may not enter the folder $folder. Put the socket into another one";
                }
            }
            if (!file_exists($path)) {
                return "there is no socket $path. Start the relay with the setting host = unix:$path";
            }
            if (filetype($path) !== 'socket') {
                return "$path is no socket. Give the one in the relay's setting host";
            }
            if (!is_writable($path)) {
                $help = "In the relay's settings, set socket_mode = 660, and socket_group to a group of that user";
                return "permission denied: PHP's user may not open the socket $path. $help";
            }
            return "no relay listens on $path; one that was killed left it behind. Start the relay";
        }

        /** Throws: there was no answer. Null: none in time. */
        private function fail(?string $said): void
        {
            if ($said === null) {
                $ms = round((self::now() - $this->start) * 1000);
                $message = "{$this->url} did not answer within $ms ms; whether it took the push is not known";
                throw new RelayException('timeout', $message, 0, true);
            }
            $message = "{$this->url} did not answer: $said. Is the relay running, and is this its address?";
            if ($this->scheme === 'https') {
                $message .= " The relay's own port takes http:// only";
            }
            throw new RelayException('unreachable', $message, 0, true);
        }

        // --- The breaker: one number that all requests to this relay share, `milliseconds * 100 + failures in a row` ---
        // Until then nobody asks. Then whoever sets it to a later time first may try, and who comes meanwhile sees that time.

        private function mayAsk(): bool
        {
            $this->isTrial = false;
            if (!$this->hasBreaker()) {
                return true;
            }
            try {
                $seen = $this->read();
                if ($seen % 100 < self::FAILURES) {
                    return true;
                }
                $until = intdiv($seen, 100);
                $now = self::clock();
                if ($now < $until && $until < $now + 100000) { // later than that is no time of ours: the clock was set back
                    return false;
                }
                $done = $now + (int) (($this->deadline - $this->start + 0.2) * 1000); // by then this attempt is counted, or dead
                return $this->isTrial = $this->swap($seen, $done * 100 + $seen % 100) !== false;
            } catch (\Error $e) { // a function that is disabled: then there is no breaker
                return true;
            }
        }

        private function count(bool $well, string $why = ''): void
        {
            try {
                // Others count at the same time. Who does not get through in a few attempts is one of many.
                for ($attempt = 0; $this->hasBreaker() && $attempt < 5; $attempt++) {
                    if ($this->counted($well, $why)) {
                        return;
                    }
                    self::rest(mt_rand(50, 500) / 1e6);
                }
            } catch (\Error $e) { // as above
                return;
            }
        }

        /** One attempt at counting; false: somebody else was quicker. */
        private function counted(bool $well, string $why): bool
        {
            $seen = $this->read();
            $failures = $seen % 100;
            if (!$well && $failures >= self::FAILURES && !$this->isTrial) {
                return true; // it was on its way when others opened the breaker, and knows no more than they did
            }
            $failures = $well ? 0 : min($failures + 1, 99);
            $until = $failures < self::FAILURES ? 0 : self::clock() + (int) ($this->cooldown($failures) * 1000);
            $next = $until * 100 + $failures;
            return $seen === $next || $this->swap($seen, $next, $failures === self::FAILURES ? $why : null) !== false;
        }

        /** Return the seconds until the next try, after this many failures. */
        private function cooldown(int $failures): float
        {
            $trials = min($failures - self::FAILURES, count(self::COOLDOWNS) - 1);
            return (float) ($this->options['cooldown'] ?? self::COOLDOWNS[$trials]);
        }

        private function read(): int
        {
            if ($this->hasApcu()) {
                return (int) apcu_fetch($this->name());
            }
            $file = $this->file('r');
            return $file ? (int) fread($file, 32) : 0;
        }

        /** What the breaker was opened for; '' if that is not known. */
        private function firstReason(): string
        {
            try {
                if ($this->hasApcu()) {
                    return (string) apcu_fetch($this->name() . '-why');
                }
                $file = $this->file('r');
                return $file ? trim((string) substr((string) fread($file, 21 + self::MAX_REASON), 21)) : '';
            } catch (\Error $e) {
                return '';
            }
        }

        /**
         * Sets the number from one value to another, and keeps a reason beside it unless that is null. False: it is not that
         * number any more, null: it cannot be set.
         */
        private function swap(int $old, int $new, ?string $why = null): ?bool
        {
            $why = $why === null ? null : substr($why, 0, self::MAX_REASON);
            if ($this->hasApcu()) {
                apcu_add($this->name(), 0);
                $isSet = apcu_cas($this->name(), $old, $new);
                if ($isSet && $why !== null) {
                    apcu_store($this->name() . '-why', $why);
                }
                return $isSet;
            }
            $file = $this->file('c+');
            if (!$file || !flock($file, LOCK_EX | LOCK_NB, $busy)) {
                return empty($busy) ? null : false;
            }
            if ((int) fread($file, 32) !== $old) {
                return false;
            }
            // Always as long, and in one write: so it can be read without a lock. Behind it comes the reason.
            $text = sprintf('%-20d', $new) . ($why === null ? '' : sprintf("\n%-" . self::MAX_REASON . 's', $why));
            return rewind($file) && fwrite($file, $text) === strlen($text) ? true : null;
        }

        /** @return resource|false the breaker's file, in a folder of this user that nobody else can enter, or has laid there */
        private function file(string $mode)
        {
            $user = function_exists('posix_geteuid') ? posix_geteuid() : (($mine = tmpfile()) ? fstat($mine)['uid'] : -1);
            $folder = sys_get_temp_dir() . "/relay-breaker-$user";
            if ($mode !== 'r') {
                mkdir($folder, 0700);
            }
            $stat = lstat($folder);
            $ours = $stat && ($stat['mode'] & 0170077) === 0040000 && $stat['uid'] === $user;
            return $ours ? fopen("$folder/{$this->name()}", $mode) : false;
        }

        private function name(): string
        {
            return 'relay-' . md5($this->url);
        }

        private function hasBreaker(): bool
        {
            return $this->options['cooldown'] === null || (float) $this->options['cooldown'] > 0;
        }

        private function hasApcu(): bool
        {
            foreach (['apcu_enabled', 'apcu_cas', 'apcu_fetch', 'apcu_add', 'apcu_store'] as $function) {
                if (!function_exists($function)) {
                    return false;
                }
            }
            return apcu_enabled();
        }

        // --- Small things ---

        private static function base64url(string $bytes): string
        {
            return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
        }

        /** Seconds, for deadlines: no clock that anybody sets, if PHP has one. */
        private static function now(): float
        {
            return function_exists('hrtime') ? hrtime(true) / 1e9 : microtime(true);
        }

        private static function rest(float $seconds): void
        {
            if (function_exists('usleep')) {
                usleep((int) ($seconds * 1e6));
            }
        }

        /** This process's number; 0 if PHP does not tell. */
        private static function process(): int
        {
            if (function_exists('getmypid')) {
                return (int) getmypid();
            }
            return function_exists('posix_getpid') ? posix_getpid() : 0;
        }

        /** Milliseconds since 1970: the one clock that several processes share. */
        private static function clock(): int
        {
            return (int) (microtime(true) * 1000);
        }
    }
}

// Classes, interfaces and traits share their names. No variable here: this may be the scope of a whole page.
if (!\class_exists('Relay', false) && !\interface_exists('Relay', false) && !\trait_exists('Relay', false)) {
    \class_alias(Relay::class, 'Relay');
}
if (
    !\class_exists('RelayException', false) && !\interface_exists('RelayException', false)
    && !\trait_exists('RelayException', false)
) {
    \class_alias(RelayException::class, 'RelayException');
}
