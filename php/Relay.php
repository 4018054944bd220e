<?php
/**
 * The relay's PHP client (MIT): docs/php.md. One file for PHP 7.4 and later. It uses cURL if PHP has it, else streams.
 *
 * It is longer than other files of this project because it is one file to copy, with two transports, and a breaker that is
 * stored in one of two places.
 *
 *     $relay = new Relay('http://127.0.0.1:8080');
 *     $relay->push('42', ['text' => 'hello']) or error_log($relay->lastError());
 *
 * The classes are PushRelay\Relay and PushRelay\RelayException. They are also called Relay and RelayException unless other
 * classes have these names. If two copies of this file are loaded, PHP uses the first one.
 */

namespace PushRelay;

if (!\class_exists(Relay::class, false)) {
    /** A push or a token that failed. getMessage() has the reason, getCode() the HTTP status, or 0 if there was no answer. */
    class RelayException extends \RuntimeException
    {
        /** @var string error code: the relay's own (`missing_key`), or `unreachable`, `timeout`, `breaker_open` … */
        public $error;
        /** @var bool whether the relay is down, and did not just refuse: then the push is retried, and the breaker counts it */
        public $away;
        /** @var float|null seconds after which the relay accepts a retry */
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
            'budget' => 0.3,        // maximum seconds that a push takes
            'strict' => false,      // true: throw a RelayException instead of returning null
            'cooldown' => null,     // seconds without requests after FAILURES; null: see COOLDOWNS; 0: no breaker
            'ca_file' => '',        // the certificate authority to trust for https, instead of the system's
            'transport' => 'auto',  // curl, streams
            'spool' => '',          // a folder for pushes that cannot be made now, which the relay takes from there: docs/spool.md
            'spool_max' => 64000000, // bytes that may wait in that folder
            'spool_mode' => null,   // permissions of its files; null: 0600, or 0640 if the folder has the setgid bit
        ];
        private const SECRETS = ['key' => '', 'secret' => ''];
        private const FAILURES = 3;
        private const COOLDOWNS = [0.5, 1.0, 2.0, 4.0, 5.0]; // seconds, one step further after each failed trial
        private const MAX_WAIT = 30;            // seconds; the relay's own limit
        private const MAX_BATCH = 1000;         // publications per request; the relay's own limit
        private const MAX_BATCH_BYTES = 900000; // the relay's max_body is a million by default
        private const MAX_ANSWER = 4000000;     // bytes; another server's answer must not fill the page's memory
        private const MAX_LARGE = 32000000;     // bytes of what may be large: all members of a room, and events from the relay
        private const MAX_REASON = 300;         // bytes kept of the first failure while the breaker is open
        private const MAX_DEPTH = 120;          // levels of data that are converted; the relay accepts 100
        private const MAX_SOCKET_PATH = 107;    // bytes; the kernel's own limit
        private const TOO_MANY_WAIT = 11;       // EAGAIN: a Unix socket's queue is full
        private const MAX_QUERY = 6000;         // bytes of a query; the relay's max_header is 32 KB by default, a proxy's 8
        private const MAX_INFO = 1024;          // bytes of a member's info; the relay's own limit
        private const MAX_MEMBER = 128;         // characters of a member's id; the relay's own limit
        private const RING_PAUSE = 0.05;        // seconds; the relay looks by itself every 0.2 seconds
        private const SPOOL_BLOCK = 4096;       // bytes of the disk that the smallest file takes
        private const SPOOL_COUNT = 1.0;        // seconds after which a process counts the files in the spool again
        private const WEBHOOK_WINDOW = 300;     // seconds; an older request may be a copy of one that somebody recorded
        private const SIGNATURE = 'HTTP_RELAY_SIGNATURE';
        // All functions that a transport calls. Hosts disable single functions (disable_functions in php.ini), so a transport
        // is chosen only if all of them exist. Features that a push does not need (the breaker, pauses, the error handler) are
        // left out if a function is missing.
        private const CURL = ['curl_init', 'curl_setopt_array', 'curl_exec', 'curl_getinfo', 'curl_error', 'curl_errno'];
        private const STREAMS = [
            'stream_socket_client', 'stream_context_create', 'stream_set_blocking', 'stream_select', 'fwrite', 'fread', 'feof',
        ];

        /**
         * @var array[] key and secret of each object. They are outside the objects because var_export() does not call
         * __debugInfo(), and var_dump() shows a closure's variables. No method gets them as an argument: traces have these.
         */
        private static $secrets = [];
        /** @var float[] when each relay was last rung, by now() */
        private static $rung = [];
        /** @var float[][] what is known of each spool: when it was counted, its bytes, and the newest file's number */
        private static $spools = [];

        private $options;               // without SECRETS
        private $mine = 0;              // this object's index in $secrets; objects with the same values share it
        private $transport = '';        // curl or streams
        private $url;                   // without a slash at the end
        private $scheme = '';           // http, https or unix
        private $host = '';             // name and port, or the path of the Unix socket
        private $path = '';             // before /push: a path of the URL
        private $asks = 'POST /push';   // the present request: method and address
        private $misconfigured = '';    // why no push can be sent
        private $lastError = null;
        private $notice = '';           // what is wrong with the spool although this push was accepted
        private $ringsLater = false;    // ring() was called again within RING_PAUSE
        private $ringsAtEnd = false;    // the end of the request rings if $ringsLater
        private $curl = null;
        private $curlOwner = 0;         // the process that created $curl: a child must not use its parent's connection
        private $warning = '';          // PHP's last warning during a push
        private $start = 0.0;           // when this push began, by now()
        private $connectBy = 0.0;       // until when it may connect
        private $deadline = 0.0;        // until when it must be over
        private $isTrial = false;       // this push tests whether a relay is up again

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
            } catch (\Throwable $e) { // a function is disabled
                $this->misconfigured = self::known($e)->getMessage();
            }
            $this->hideSecrets();
            if ($this->misconfigured !== '' && $this->options['strict']) {
                throw new RelayException('misconfigured', $this->misconfigured);
            }
        }

        /** Return what print_r(), var_dump() and error pages show. */
        public function __debugInfo(): array
        {
            $shown = [];
            foreach (self::$secrets[$this->mine] as $name => $value) {
                $shown[$name] = $value === '' ? '' : '(hidden)';
            }
            return ['url' => $this->url, 'options' => $shown + $this->options, 'lastError' => $this->lastError];
        }

        /** Return the state without the key, the secret and the connection. */
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
         * Push to a destination or a list of them, within `budget` seconds, or `budget` plus `wait` if there is a wait.
         *
         * @param string|int|array $destination
         * @param mixed            $data    any JSON value; `new stdClass` is the empty object
         * @param array            $options event, ttl, id (the idempotency key), wait, except: docs/http-api.md. Null: not given
         * @return array|null the relay's answer (a list for a list of destinations); ['spooled' => true, 'reason' => …] if the
         *     push waits in the spool; null: lastError() has the reason
         */
        public function push($destination, $data, $options = []): ?array
        {
            return $this->guarded(function () use ($destination, $data, $options) {
                if (!is_array($options)) {
                    throw new RelayException('invalid_options', "the options must be an array, such as ['event' => 'order']");
                }
                $fields = self::fields(['destination' => $destination, 'data' => $data] + $options);
                $wait = is_numeric($fields['wait'] ?? null) ? max(0, min(self::MAX_WAIT, (float) $fields['wait'])) : 0;
                $destination = $fields['destination'] ?? null;
                $isAnswer = static fn($answer) => self::isAnswer($answer, $destination);
                $kept = isset($fields['wait']) ? array_diff_key($fields, ['wait' => 1]) : null;
                return $this->deliver(self::json($fields), $isAnswer, $wait, $kept);
            });
        }

        /**
         * Push several at once. Each push is an array of destination, data and push()'s options, except `wait`. They
         * are sent in requests of at most 1,000 publications, all within one budget. Each answer has the key of its
         * push. The answer to a push that was not accepted has `error` and `message`, and lastError() gives the number
         * of these.
         *
         * @param iterable $pushes
         * @return array|null null: no request was answered
         */
        public function pushMany($pushes): ?array
        {
            return $this->guarded(function () use ($pushes) {
                $each = "an array: ['destination' => '42', 'data' => 'hello']";
                if (!is_iterable($pushes)) {
                    throw new RelayException('invalid_pushes', "pushMany() needs a list of pushes, each of them $each");
                }
                $answers = $items = $destinations = [];
                $first = null;
                foreach ($pushes as $key => $push) {
                    $answers[$key] = null; // in their order
                    try {
                        if (!is_array($push) && !$push instanceof \stdClass) {
                            throw new RelayException('invalid_push', "each push of pushMany() must be $each");
                        }
                        $fields = self::fields((array) $push);
                        $items[$key] = self::json($fields);
                        $destinations[$key] = $fields['destination'] ?? null;
                    } catch (\Throwable $e) { // for example from the data's own jsonSerialize(); the others are sent
                        $e = self::known($e);
                        $first = $first ?? $e;
                        $answers[$key] = self::refusal($e);
                    }
                }
                $answered = $away = false;
                $spooled = ''; // why
                foreach (self::batches($items, $destinations) as $batch) {
                    $to = array_map(static fn($key) => $destinations[$key], array_keys($batch));
                    try {
                        $body = '[' . implode(',', $batch) . ']';
                        $isAnswer = static fn($answer) => self::isBatchAnswer($answer, $to);
                        $got = $away ? [] : $this->deliver($body, $isAnswer, 0, null, $spooled);
                        $answered = $answered || $got;
                        if (isset($got['spooled'])) {
                            $spooled = $got['reason'];
                            $got = array_fill(0, count($batch), $got);
                        }
                    } catch (RelayException $e) {
                        $first = $first ?? $e;
                        $away = $e->away; // it was retried already
                        $got = array_fill(0, count($batch), self::refusal($e));
                    }
                    foreach (array_keys($batch) as $i => $key) {
                        $answers[$key] = $got[$i] ?? ['error' => 'not_answered', 'message' => 'not sent: the request before it failed'];
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
         * Tell the relay that a row was committed to its outbox, or a file was put into its spool, so that it looks at once.
         * Calls that follow within 0.05 seconds are combined into one at the end of the request.
         *
         * @return bool false: the relay cannot be reached, and lastError() has the reason; it looks when it is back
         */
        public function ring(): bool
        {
            if (self::now() - (self::$rung[$this->url] ?? -1) >= self::RING_PAUSE) {
                return $this->ringNow();
            }
            $this->ringsLater = true;
            if (!$this->ringsAtEnd && function_exists('register_shutdown_function')) {
                $this->ringsAtEnd = true;
                register_shutdown_function(function (): void {
                    if ($this->ringsLater) {
                        $this->options['strict'] = false; // nobody could catch an exception
                        $this->ringNow();
                    }
                });
            }
            return true;
        }

        /**
         * Return who is connected to each of these destinations, by name: `connections`, `since` if there are any, and
         * `members` if some of them have a name (the claim `as` of their tokens).
         *
         * @param string|int|array $destinations
         * @return array|null null: lastError() has the reason
         */
        public function presence($destinations): ?array
        {
            return $this->guarded(function () use ($destinations) {
                $found = [];
                $list = is_array($destinations) ? array_values($destinations) : [$destinations];
                $names = array_unique(array_map([self::class, 'named'], $list));
                if (in_array(null, $names, true) || in_array('', $names, true)) {
                    throw new RelayException('invalid_destination', 'presence() needs the name of a destination, or a list of them');
                }
                foreach (self::queries($names) as [$query, $some]) {
                    // Not array_merge(): a name of digits is a number in PHP's arrays.
                    $found += $this->ask('', static function ($answer) use ($some): bool {
                        return !array_filter($some, static fn($name) => !is_int($answer[$name]['connections'] ?? null));
                    }, 0, "GET /presence?$query");
                }
                return $found;
            });
        }

        /**
         * Yield every destination that somebody holds, in the order of the names: name => what presence() returns for it.
         * If a request fails it ends, and lastError() has the reason; the option strict throws. Each request has its own budget.
         *
         * @param int $most number of destinations per request
         */
        public function presenceAll(int $most = 1000): \Generator
        {
            $after = null;
            do {
                $page = $this->guarded(function () use ($most, $after) {
                    $more = $after === null ? '' : '&after=' . rawurlencode($after);
                    return $this->ask('', static function ($answer): bool {
                        return is_array($answer) && is_array($answer['destinations'] ?? null) && array_key_exists('next', $answer);
                    }, 0, "GET /presence?all=1&limit=$most$more");
                });
                foreach ($page['destinations'] ?? [] as $name => $found) {
                    yield (string) $name => $found;
                }
                $after = $page['next'] ?? null;
            } while ($after !== null);
        }

        /**
         * Return the events in this request, which the relay sent to webhook_url or request_url, after verifying its signature.
         * If that fails, answer with the status 403 (or 400, 500) and JSON, and throw a RelayException that has both.
         *
         * @param string|string[] $secret    the relay's webhook_secret; while you replace it, a list of both
         * @param string|null     $body      the request's body, if PHP's own php://input does not have it; then no answer is sent
         * @param string|null     $signature its header Relay-Signature
         * @return array[] each with id, event, at, and the fields of its event: docs/webhooks.md
         */
        public static function webhook(
            #[\SensitiveParameter]
            $secret,
            ?string $body = null,
            ?string $signature = null
        ): array {
            $isOurs = $body === null;
            try {
                $body = $body ?? (string) file_get_contents('php://input', false, null, 0, self::MAX_LARGE);
                self::verify(is_array($secret) ? array_values($secret) : [$secret], $body, $signature ?? ($isOurs ? self::signature() : ''));
                return self::events($body);
            } catch (RelayException $e) {
                if ($isOurs && function_exists('http_response_code') && !headers_sent()) {
                    http_response_code($e->getCode());
                    header('Content-Type: application/json');
                    echo self::json(self::refusal($e));
                }
                throw $e;
            }
        }

        /**
         * Return the request of a page (relay.request() in relay.js) in this HTTP request, verified as by webhook(): `name`,
         * `data`, `sid`, and `as` if the page's token has it. Null if the HTTP request has other events. Answer with JSON.
         *
         * @param string|string[] $secret the parameters are webhook()'s
         */
        public static function request(
            #[\SensitiveParameter]
            $secret,
            ?string $body = null,
            ?string $signature = null
        ): ?array {
            $events = self::webhook($secret, $body, $signature);
            return count($events) === 1 && $events[0]['event'] === 'request' ? $events[0] : null;
        }

        /**
         * Return a token for relay.js, valid until `exp` (seconds since 1970): the destinations that a page may register (`ids`),
         * push to (`push`) and see the members of (`presence`), and the user whose page it is (`as`: id and info). Throw
         * RelayException if that is impossible, even without strict: a wrong token would only fail later.
         */
        public function token(array $claims): string
        {
            $secret = self::$secrets[$this->mine]['secret'];
            if ($secret === '') {
                throw new RelayException('no_secret', "set the option secret to the relay's setting secret");
            }
            if (!isset($claims['ids']) && !isset($claims['push']) && !isset($claims['presence'])) {
                $help = "the token needs 'ids', such as 'ids' => ['42', 'news-*'], or 'push', or 'presence'";
                throw new RelayException('invalid_claims', $help);
            }
            if (!is_int($claims['exp'] ?? null)) {
                throw new RelayException('invalid_claims', "the token needs the time of its end: 'exp' => time() + 3600");
            }
            foreach (array_intersect_key($claims, ['ids' => 1, 'push' => 1, 'presence' => 1]) as $name => $ids) {
                $ids = is_array($ids) ? array_values($ids) : [$ids]; // a single value is a list too, and 42 is "42"
                if (array_filter($ids, static fn($id) => !is_int($id) && (!is_string($id) || $id === ''))) {
                    throw new RelayException('invalid_claims', "'$name' must be strings or whole numbers: ['42', 'news-*']");
                }
                $claims[$name] = array_map('strval', $ids);
            }
            if (isset($claims['as'])) {
                $claims['as'] = self::member($claims['as']);
            }
            $signed = self::base64url('{"alg":"HS256","typ":"JWT"}') . '.' . self::base64url(self::json($claims));
            return $signed . '.' . self::base64url(hash_hmac('sha256', $signed, $secret, true));
        }

        /**
         * Return why the last call did not succeed, and what to do: code, colon, sentence. Null if it did. After a push that was
         * accepted it is not null in one case: something is wrong with the spool, which a later push may need.
         */
        public function lastError(): ?string
        {
            return $this->lastError;
        }

        // --- Options and data ---

        /** Read the options and the URL. Return what is wrong with them, or ''. */
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
                    return "$name must be a number of seconds from 0 to 60";
                }
            }
            if (PHP_INT_SIZE < 8) {
                $options['cooldown'] = 0.0; // the breaker's number has 18 digits
            }
            foreach (['key', 'secret', 'ca_file', 'spool'] as $name) {
                if (!is_scalar($options[$name] ?? '')) {
                    $options[$name] = '';
                    return "$name must be a string";
                }
                $options[$name] = (string) $options[$name]; // getenv() returns false for a missing variable
            }
            if (preg_match('/[^\x21-\x7e]/', $options['key'])) {
                return 'the key contains a space, a line break or another character that no key has';
            }
            if (!in_array($options['transport'], ['auto', 'curl', 'streams'], true)) {
                return 'transport must be auto, curl or streams';
            }
            return $this->checkSpool() ?: $this->readUrl() ?: $this->chooseTransport();
        }

        private function checkSpool(): string
        {
            $options = &$this->options;
            if ($options['spool'] === '') {
                return '';
            }
            if (!preg_match('~^/[^\0]*[^\0/]/*$~D', $options['spool'])) {
                return 'spool must be the whole path of a folder, such as /var/spool/relay';
            }
            $options['spool'] = rtrim($options['spool'], '/');
            $most = is_numeric($options['spool_max']) ? (float) $options['spool_max'] : 0.0;
            if (!($most >= self::SPOOL_BLOCK && $most < 1e15)) { // so not NAN either
                return 'spool_max must be a number of bytes, ' . self::SPOOL_BLOCK . ' or more';
            }
            $mode = $options['spool_mode'];
            if ($mode !== null && (!is_int($mode) || ($mode & 07600) !== 0600)) {
                return 'spool_mode must be the permissions of a file, such as 0640, written with the 0 in front';
            }
            return '';
        }

        private function readUrl(): string
        {
            $this->url = rtrim($this->url, '/');
            if (preg_match('~^https?://.*/push$~iD', $this->url)) { // the address of /push instead of the relay's
                $this->url = substr($this->url, 0, -strlen('/push'));
            }
            if (preg_match('~^(https?)://((?:\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::\d+)?)(/[^\s?#]*)?$~iD', $this->url, $url)) {
                $this->scheme = strtolower($url[1]);
                $this->host = $url[2];
                $this->path = $url[3] ?? '';
            } elseif (preg_match('~^unix:(?://)?(/[^\0]+)$~D', $this->url, $url)) {
                $this->scheme = 'unix';
                $this->host = $url[1];
            } else {
                $shown = preg_replace(['~//.*@~s', '~\?.*~s'], ['//...@', '?...'], $this->url); // without parts that may be secret
                $shown = addcslashes(substr($shown, 0, 100), "\0..\37'\177..\377");
                return "the relay's address must be http://HOST:PORT, https://HOST/PATH or unix:/PATH/OF/A.SOCK, not '$shown'";
            }
            if ($this->scheme === 'unix' && strlen($this->host) > self::MAX_SOCKET_PATH) {
                $most = self::MAX_SOCKET_PATH;
                return "the path of a Unix socket has at most $most bytes: choose a shorter one, also in the relay's setting host";
            }
            return '';
        }

        /** Choose cURL if all of its functions exist, else streams. Return why neither works, or ''. */
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
            $help = 'remove them from disable_functions in php.ini, or install the extension';
            return 'PHP cannot call a relay here: ' . implode(', and ', $disabled) . ": $help";
        }

        /** Move key and secret out of the object. This calls no function, because any of them may be disabled. */
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
            if (is_array($destination) || is_object($destination)) { // for example an enum: the relay reads its value
                $list = is_array($destination) ? array_values($destination) : $destination;
                $push['destination'] = json_decode(self::json([$list]))[0];
            }
            $data = array_key_exists('data', $push) ? ['data' => $push['data']] : []; // null is data
            // The idempotency key lets the relay recognize a push that is sent again.
            return $data + array_filter($push, static fn($value) => $value !== null) + ['id' => self::newId()];
        }

        private static function newId(): string
        {
            if (function_exists('random_bytes')) {
                return bin2hex(random_bytes(16));
            }
            return mt_rand() . '-' . mt_rand() . '-' . mt_rand() . '-' . (int) (self::now() * 1e6);
        }

        /** Return a value with each object as JSON represents it. Throw for objects that would silently arrive as {}. */
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

        /** Do the same for an object without public properties. */
        private static function plainObject($object)
        {
            $is = get_class($object);
            if ($object instanceof \Closure) {
                throw new RelayException('invalid_data', 'this cannot be sent: it contains a Closure. Send what that returns');
            }
            if ($object instanceof \Traversable) {
                throw new RelayException('invalid_data', "this cannot be sent: it contains a $is. Send iterator_to_array(…)");
            }
            if (method_exists($object, '__toString')) {
                return (string) $object;
            }
            if (json_encode($object) === '{}') {
                $help = 'Send an array, or implement JsonSerializable in that class';
                throw new RelayException('invalid_data', "this cannot be sent: a $is has no public properties. $help");
            }
            return $object; // for example a DateTime or an enum, which JSON represents
        }

        private static function json(array $value): string
        {
            try {
                return json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
            } catch (\JsonException $e) {
                $said = [
                    JSON_ERROR_UTF8 => 'a string in it is not UTF-8: convert it, as with iconv("ISO-8859-1", "UTF-8", $text)',
                    JSON_ERROR_INF_OR_NAN => 'a number in it is infinite or not a number (NAN), which JSON does not have',
                    JSON_ERROR_DEPTH => 'it is nested too deeply',
                    JSON_ERROR_RECURSION => 'it contains itself',
                ];
                $why = $said[$e->getCode()] ?? $e->getMessage();
                throw new RelayException('invalid_data', "this cannot be sent: $why");
            }
        }

        /** Split items (key => JSON) into batches that fit one request. */
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

        /** Return an exception as a RelayException, with advice if it is due to a disabled function. */
        private static function known(\Throwable $e): RelayException
        {
            if ($e instanceof RelayException) {
                return $e;
            }
            $said = $e->getMessage();
            try {
                $isDisabled = $e instanceof \Error && strpos($said, 'Call to undefined function') === 0;
                $said = $isDisabled ? $said : get_class($e) . ": $said";
            } catch (\Error $another) { // strpos() or get_class() is disabled as well
                $isDisabled = true;
            }
            $help = '. Remove it from disable_functions in php.ini, or install its extension';
            $word = $isDisabled ? 'function_disabled' : 'unexpected';
            return new RelayException($word, $isDisabled ? $said . $help : $said);
        }

        /** Return whether a relay can have sent this answer to a push: an id per destination, and a list for a list. */
        private static function isAnswer($answer, $destination): bool
        {
            if (!is_array($destination)) {
                $is = is_array($answer) && is_string($answer['id'] ?? null) && $answer['id'] !== '';
                return $is && ($answer['destination'] ?? null) === self::named($destination);
            }
            $names = array_values(array_unique(array_map([self::class, 'named'], $destination))); // the relay drops repetitions
            return $names && self::isEach($answer, $names, [self::class, 'isAnswer']);
        }

        /** Return the same for a batch, in which single pushes may be refused. */
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

        /** Return a destination as the relay writes it in its answer: 42 and 42.0 are "42". Null: no relay accepts it. */
        private static function named($destination): ?string
        {
            if (is_float($destination)) {
                return sprintf('%.0f', $destination + 0.0); // not "-0"
            }
            return is_int($destination) || is_string($destination) ? (string) $destination : null;
        }

        private static function isRefusal($answer): bool
        {
            $error = is_array($answer) ? $answer['error'] ?? null : null; // a code, unlike the "Not Found" of other programs
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

        /** Split names of destinations into queries that fit one request, each with its names. */
        private static function queries(array $names): iterable
        {
            $query = '';
            $some = [];
            foreach ($names as $name) {
                $more = 'destination=' . rawurlencode($name);
                if ($some && strlen($query) + strlen($more) >= self::MAX_QUERY) {
                    yield [$query, $some];
                    [$query, $some] = ['', []];
                }
                $query .= ($query === '' ? '' : '&') . $more;
                $some[] = $name;
            }
            if ($some) {
                yield [$query, $some];
            }
        }

        /** Return the claim `as` as the relay reads it. Throw if it would refuse the token. */
        private static function member($member): array
        {
            $member = (array) $member;
            $id = $member['id'] ?? null;
            $isId = is_int($id) || (is_string($id) && preg_match('/^[^\p{Cc}]{1,' . self::MAX_MEMBER . '}$/Du', $id));
            if (!$isId || array_diff_key($member, ['id' => 1, 'info' => 1])) {
                $most = self::MAX_MEMBER;
                $help = "'as' must be ['id' => '42', 'info' => […]]: an id of 1 to $most characters, and an info if there is one";
                throw new RelayException('invalid_claims', $help);
            }
            $info = self::plain($member['info'] ?? []);
            $isList = is_array($info) && $info && array_keys($info) === range(0, count($info) - 1);
            if ($isList || (!is_array($info) && !is_object($info))) {
                throw new RelayException('invalid_claims', "the info in 'as' must have names: ['name' => 'Ann']");
            }
            $size = strlen(self::json((array) $info));
            if ($size > self::MAX_INFO) {
                $most = self::MAX_INFO;
                throw new RelayException('invalid_claims', "the info in 'as' has $size bytes as JSON, and the relay accepts $most");
            }
            return ['id' => (string) $id] + ((array) $info ? ['info' => $info] : []);
        }

        /** Run work that may throw; keep the error in lastError(), and throw it only if the option strict is set. */
        private function guarded(callable $work): ?array
        {
            $this->lastError = null;
            $this->notice = '';
            try {
                $this->start = self::now();
                if ($this->misconfigured !== '') {
                    throw new RelayException('misconfigured', $this->misconfigured);
                }
                $answer = $work();
                $this->lastError = $this->lastError ?? ($this->notice === '' ? null : $this->notice);
                return $answer;
            } catch (\Throwable $e) { // for example from the data's own jsonSerialize()
                $error = self::known($e);
            }
            $status = $error->getCode() ? " ({$error->getCode()})" : '';
            $this->lastError = "{$error->error}$status: {$error->getMessage()}";
            if ($this->options['strict']) {
                throw $error;
            }
            return null;
        }

        // --- Requests ---

        /**
         * Send a request, with one retry, and return the answer. `$isAnswer` returns whether a relay can have sent that answer.
         * `$wait`: seconds that the relay may take in addition to the budget. `$asks`: method and address.
         */
        private function ask(string $body, callable $isAnswer, float $wait = 0, string $asks = 'POST /push'): array
        {
            $this->asks = $asks;
            $this->connectBy = $this->start + $this->options['budget'];
            $this->deadline = $this->connectBy + $wait;
            return $this->quietly(function () use ($body, $isAnswer) {
                if (!$this->mayAsk()) {
                    $failed = "{$this->url} failed " . self::FAILURES . ' times in a row or more, so it is not asked for a moment';
                    $why = $this->firstReason();
                    $why = $why === '' ? '' : ". It began with: $why";
                    throw new RelayException('breaker_open', "$failed; {$this->what()} was not sent$why");
                }
                try {
                    $answer = $this->tried($body, $isAnswer);
                } catch (RelayException $e) {
                    $this->count(!$e->away, "{$e->error}: {$e->getMessage()}");
                    throw $e;
                }
                $this->count(true);
                return $answer;
            });
        }

        /** Return what the present request is, for sentences. */
        private function what(): string
        {
            return $this->asks === 'POST /push' ? 'this push' : 'this request';
        }

        /** Run work whose warnings must not get into the page; `$this->warning` has the last one. */
        private function quietly(callable $work)
        {
            // Not "@": the handlers of frameworks would still throw.
            $isHandled = function_exists('set_error_handler') && function_exists('restore_error_handler');
            if ($isHandled) {
                set_error_handler(function (int $level, string $said): bool {
                    $this->warning = $said;
                    return true;
                });
            }
            try {
                return $work();
            } finally {
                if ($isHandled) {
                    restore_error_handler();
                }
            }
        }

        private function ringNow(): bool
        {
            $this->ringsLater = false;
            $now = self::now();
            $answer = $this->guarded(function () {
                return $this->ask('', [self::class, 'isRung'], 0, 'POST /ring');
            });
            if ($answer !== null) { // else the next call tries again, or the breaker prevents it
                self::$rung[$this->url] = $now;
            }
            return $answer !== null;
        }

        private static function isRung($answer): bool
        {
            return is_array($answer) && ($answer['ok'] ?? null) === true;
        }

        private function tried(string $body, callable $isAnswer): array
        {
            try {
                return $this->sent($body, $isAnswer);
            } catch (RelayException $e) {
                $pause = $e->retryAfter ?? mt_rand(10, 40) / 1000; // so that many pages that failed at once do not retry at once
                if (!$e->away || self::now() + $pause + 0.01 > $this->deadline) {
                    throw $e;
                }
                self::rest($pause);
                return $this->sent($body, $isAnswer);
            }
        }

        /** Send one request. The exception is `away` if the same push may well succeed a moment later. */
        private function sent(string $body, callable $isAnswer): array
        {
            [$status, $head, $text] = $this->transport === 'curl' ? $this->byCurl($body) : $this->byStreams($body);
            $answer = json_decode($text, true);
            if ($status === 200 && $isAnswer($answer)) {
                return $answer;
            }
            if ($status === 200 && $text === '' && !preg_match('/^Content-Length:[ \t]*0/mi', $head)) {
                $this->fail('the connection broke before the answer was complete');
            }
            if ($status === 200 || !self::isRefusal($answer)) {
                $answer = ['error' => 'not_the_relay', 'message' => $this->foreign($status, $head, $text)];
            }
            // If too many pushes wait, the relay itself is up.
            $away = in_array($status, [502, 503, 504], true) && $answer['error'] !== 'too_many_waiting';
            throw new RelayException($answer['error'], $answer['message'], $status, $away, self::retryAfter($head));
        }

        /** Return the request's headers. No method gets them as an argument, because traces show arguments. */
        private function headers(): array
        {
            $headers = ['Content-Type: application/json', 'User-Agent: Relay.php'];
            $key = self::$secrets[$this->mine]['key'];
            return $key === '' ? $headers : array_merge($headers, ["Authorization: Bearer $key"]);
        }

        /** Return what to do about an answer that no relay sends. */
        private function foreign(int $status, string $head, string $text): string
        {
            if ($status >= 300 && $status < 400 && preg_match('/^Location:[ \t]*([\x21-\x7e]{1,200})/mi', $head, $to)) {
                $help = "Use the relay's own address, such as http://127.0.0.1:8080, which does not redirect";
                return "{$this->address()} redirects to {$to[1]}. $help";
            }
            $says = substr(trim(preg_replace('/<[^>]*>|[^\x21-\x7e]+/', ' ', substr($text, 0, 2000))), 0, 200);
            $advice = 'Check the address. If it is a proxy, check that it forwards /push to a running relay. ';
            if ($status >= 400 && $status < 500) {
                $advice = 'Check the address: browsers use the web server\'s address, but pushes go to the relay\'s own, such as '
                    . 'http://127.0.0.1:8080 on the same machine (settings host and port). ';
            }
            $advice .= 'The answer was: ';
            return "something other than a relay answered at {$this->address()}. $advice" . ($says === '' ? 'empty' : $says);
        }

        /** Return the address of the present request, without its query. */
        private function address(): string
        {
            return $this->url . preg_replace('/^\w+ |\?.*/s', '', $this->asks);
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
            [$method, $path] = explode(' ', $this->asks, 2);
            $most = $this->mostBytes();
            $url = $this->scheme === 'unix' ? 'http://localhost' : "{$this->scheme}://{$this->host}{$this->path}";
            curl_setopt_array($curl, ($method === 'GET' ? [CURLOPT_HTTPGET => true] : [CURLOPT_POSTFIELDS => $body]) + [
                CURLOPT_URL => $url . $path,
                CURLOPT_HTTPHEADER => array_merge($this->headers(), ['Expect:']), // else large bodies wait for "100 Continue"
                CURLOPT_CONNECTTIMEOUT_MS => max(1, (int) (($this->connectBy - $now) * 1000)),
                CURLOPT_TIMEOUT_MS => max(1, (int) (($this->deadline - $now) * 1000)),
                CURLOPT_HEADERFUNCTION => static function ($curl, string $line) use (&$head): int {
                    $head .= $line;
                    return strlen($line);
                },
                CURLOPT_WRITEFUNCTION => static function ($curl, string $piece) use (&$text, $most): int {
                    $text .= $piece;
                    return strlen($text) > $most ? 0 : strlen($piece);
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

        /** Return the bytes that an answer may have. */
        private function mostBytes(): int
        {
            return $this->asks[0] === 'G' ? self::MAX_LARGE : self::MAX_ANSWER;
        }

        /** @return CurlHandle|resource with the options that all pushes share. It is kept, and so is its connection */
        private function curlHandle()
        {
            $process = self::process();
            if ($this->curl !== null && $process !== 0 && $this->curlOwner === $process) {
                return $this->curl;
            }
            $options = [
                CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
                CURLOPT_NOSIGNAL => true, // needed for times below one second
            ];
            if ($this->scheme === 'unix') {
                $options[CURLOPT_UNIX_SOCKET_PATH] = $this->host;
            }
            if ($this->scheme === 'unix' || preg_match('/^(localhost|127\.[\d.]+|\[::1\])(:|$)/i', $this->host)) {
                $options[CURLOPT_PROXY] = ''; // ignore http_proxy
            }
            if (defined('CURLOPT_QUICK_EXIT')) { // PHP 8.3: do not wait for a name server that does not answer
                $options[CURLOPT_QUICK_EXIT] = true;
            }
            if ($this->options['ca_file'] !== '') {
                $options[CURLOPT_CAINFO] = $this->options['ca_file'];
            }
            $curl = curl_init();
            if (!curl_setopt_array($curl, $options)) { // for example, ca_file is outside open_basedir
                throw new RelayException('misconfigured', "cURL rejects its options: {$this->warning}");
            }
            $this->curlOwner = $process;
            return $this->curl = $curl;
        }

        /**
         * Speak HTTP by hand: PHP's `http://` wrapper limits the time of every read, but not of the whole request.
         *
         * @return array [status, head, body]
         */
        private function byStreams(string $body): array
        {
            $stream = $this->connected();
            $host = $this->scheme === 'unix' ? 'localhost' : $this->host;
            $headers = array_merge($this->headers(), ["Host: $host", 'Content-Length: ' . strlen($body), 'Connection: close']);
            [$method, $path] = explode(' ', $this->asks, 2);
            // HTTP/1.0, so that no answer is chunked.
            $out = "$method {$this->path}$path HTTP/1.0\r\n" . implode("\r\n", $headers) . "\r\n\r\n" . $body;
            // If the body cannot be sent, there may still be an answer: 413 is sent before the body is read.
            while ($out !== '' && ($written = fwrite($stream, $out)) !== false) {
                $out = (string) substr($out, $written);
                if ($out !== '') {
                    $this->await($stream, true);
                }
            }
            $in = $head = '';
            $size = $most = $this->mostBytes();
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
                $this->fail('the connection broke before the answer was complete');
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

        /** Wait until the stream can be read, or written. Throw if the time runs out first. */
        private function await($stream, bool $toWrite = false): void
        {
            $left = max(0, $this->deadline - self::now());
            [$read, $write, $except] = $toWrite ? [null, [$stream], null] : [[$stream], null, null];
            if (!stream_select($read, $write, $except, (int) $left, (int) (fmod($left, 1) * 1e6))) {
                $this->fail(null);
            }
        }

        /** Throw with the reason why PHP cannot use a Unix socket, and what to do. `$number`, `$said`: the system's error. */
        private function failAtSocket(int $number, string $said): void
        {
            $trouble = $this->socketTrouble() ?? $said;
            if ($number === self::TOO_MANY_WAIT) {
                $trouble = 'too many connections are waiting there';
            }
            throw new RelayException('unreachable', "{$this->url} did not answer: $trouble", 0, true);
        }

        private function socketTrouble(): ?string
        {
            $path = $this->host;
            if (function_exists('ini_get') && (string) ini_get('open_basedir') !== '') {
                return null; // PHP may not access these files
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
                return "$path is not a socket. Use the path in the relay's setting host";
            }
            if (!is_writable($path)) {
                $help = "In the relay's settings, set socket_mode = 660, and socket_group to a group of that user";
                return "permission denied: PHP's user may not open the socket $path. $help";
            }
            return "no relay listens on $path; one that was killed left it behind. Start the relay";
        }

        /** Throw because there was no answer. `$said`: the reason; null: the time ran out. */
        private function fail(?string $said): void
        {
            if ($said === null) {
                $ms = round((self::now() - $this->start) * 1000);
                $unknown = $this->asks === 'POST /push' ? '; whether it took the push is not known' : '';
                $message = "{$this->url} did not answer within $ms ms$unknown";
                throw new RelayException('timeout', $message, 0, true);
            }
            $message = "{$this->url} did not answer: $said. Is the relay running, and is this its address?";
            if ($this->scheme === 'https') {
                $message .= " The relay's own port takes http:// only";
            }
            throw new RelayException('unreachable', $message, 0, true);
        }

        // --- The spool --- A folder of pushes that could not be made, from which the relay takes them: docs/spool.md. The names of
        // its files sort in the order in which they were made. While a push waits there, later ones go there too, because they must
        // not overtake it. A relay that takes files from the folder holds a lock on its file .lock from before it answers requests.

        /**
         * Send pushes, or leave them in the spool if that is not possible now; then return ['spooled' => true, 'reason' => …].
         *
         * `$fields`: what the spool gets, if that differs from the body. `$queued`: why the pushes must wait behind others.
         */
        private function deliver(
            string $body,
            callable $isAnswer,
            float $wait = 0,
            ?array $fields = null,
            string $queued = ''
        ): array {
            if ($this->options['spool'] === '') {
                return $this->ask($body, $isAnswer, $wait);
            }
            $why = $queued ?: $this->quietly(function (): string {
                try {
                    return $this->whyQueued();
                } catch (\Error $e) { // a function is disabled
                    return $this->spoolUnusable(self::known($e)->getMessage());
                }
            });
            if ($why === '') {
                try {
                    return $this->ask($body, $isAnswer, $wait);
                } catch (RelayException $e) {
                    // A refusal is final: the spool could not push it either.
                    if (!$e->away && $e->error !== 'breaker_open' && $e->getCode() < 500 && $e->getCode() !== 408) {
                        throw $e;
                    }
                    $why = "{$e->error}: {$e->getMessage()}";
                }
            }
            $kept = $fields === null ? $body : self::json($fields);
            $this->quietly(function () use ($kept, $why): void {
                try {
                    $this->spool($kept, $why);
                } catch (\Error $e) { // a function is disabled
                    $this->notSpooled('spool_failed', $why, self::known($e)->getMessage());
                }
            });
            return ['spooled' => true, 'reason' => $why];
        }

        /** Return why a push must go to the spool without being tried, or ''. */
        private function whyQueued(): string
        {
            $folder = $this->options['spool'];
            $handle = opendir($folder);
            if (!$handle || !is_writable($folder)) {
                return $this->spoolUnusable($this->spoolTrouble());
            }
            do {
                $name = readdir($handle);
            } while ($name !== false && !self::isSpooled($name));
            closedir($handle);
            if ($name === false) {
                return '';
            }
            if ($this->isTaken() || !$this->isRelayUp() || $this->isTaken()) {
                return 'queued: earlier pushes wait in the spool';
            }
            $this->notice = "spool_not_taken: pushes wait in $folder, and the relay at {$this->url} does not take them. "
                . "Set spool = $folder in its settings and start it again; if it is set, its log has the reason";
            return '';
        }

        /** Note that the spool cannot be used. Nothing that waits there can be found, so the push need not wait. */
        private function spoolUnusable(string $why): string
        {
            $this->notice = "spool_failed: pushes are accepted, but if the relay were away, they would be lost: $why";
            return '';
        }

        private static function isSpooled(string $name): bool
        {
            return $name[0] !== '.' && substr($name, -5) === '.json';
        }

        /** Return whether a relay takes files from the spool. */
        private function isTaken(): bool
        {
            $lock = fopen("{$this->options['spool']}/.lock", 'r');
            return $lock && !flock($lock, LOCK_SH | LOCK_NB, $isHeld) && $isHeld;
        }

        private function isRelayUp(): bool
        {
            try {
                return (bool) $this->ask('', [self::class, 'isRung'], 0, 'POST /ring');
            } catch (RelayException $e) {
                return !$e->away && $e->error !== 'breaker_open' && $e->getCode() < 500;
            }
        }

        /** Write a push into the spool. Throw if that is not possible. */
        private function spool(string $body, string $why): void
        {
            $folder = $this->options['spool'];
            $known = $this->countSpool();
            $kilobytes = (int) ceil(max(strlen($body), self::SPOOL_BLOCK) / 1024);
            $most = (int) $this->options['spool_max'];
            if ($known['bytes'] + $kilobytes * 1024 > $most) {
                $help = 'Start the relay, with the setting spool, or raise the option spool_max';
                $this->notSpooled('spool_full', $why, "$folder has {$known['bytes']} of $most bytes. $help");
            }
            $number = max(floor(microtime(true) * 1e6), $known['newest'] + 1); // also if the clock was set back
            $name = sprintf('%016.0f-%d-%s-%dk', $number, self::process(), substr(self::newId(), 0, 12), $kilobytes);
            $file = fopen("$folder/.$name.tmp", 'x');
            if (!$file) {
                $this->notSpooled('spool_failed', $why, $this->spoolTrouble());
            }
            $mode = $this->options['spool_mode'] ?? (fileperms($folder) & 02000 ? 0640 : 0600);
            $this->warning = '';
            $isWritten = chmod("$folder/.$name.tmp", $mode) && fwrite($file, $body) === strlen($body) && fflush($file);
            $isWritten = fclose($file) && $isWritten && rename("$folder/.$name.tmp", "$folder/$name.json");
            if (!$isWritten) {
                $said = $this->warning === '' ? 'writing the file failed' : $this->warning;
                unlink("$folder/.$name.tmp");
                $this->notSpooled('spool_failed', $why, "$folder: $said");
            }
            self::$spools[$folder]['bytes'] += $kilobytes * 1024;
            self::$spools[$folder]['newest'] = $number;
        }

        private function notSpooled(string $error, string $why, string $said): void
        {
            throw new RelayException($error, "this push was not sent ($why), and does not wait in the spool either: $said");
        }

        /** Return what is known of the spool, by a count that is at most SPOOL_COUNT seconds old. */
        private function countSpool(): array
        {
            $folder = $this->options['spool'];
            $known = self::$spools[$folder] ?? ['at' => -INF, 'bytes' => 0, 'newest' => 0.0];
            if (self::now() - $known['at'] > self::SPOOL_COUNT && ($handle = opendir($folder))) {
                $known = ['at' => self::now(), 'bytes' => 0, 'newest' => $known['newest']];
                while (($name = readdir($handle)) !== false) {
                    if (self::isSpooled($name)) {
                        $known['bytes'] += self::sizeOf($name);
                        // Other programs may use any names, also 1e300 and 9999999999999999, which nothing could follow.
                        if (preg_match('/^[0-8]\d{15}-/', $name)) {
                            $known['newest'] = max($known['newest'], (float) substr($name, 0, 16));
                        }
                    }
                }
                closedir($handle);
            }
            return self::$spools[$folder] = $known;
        }

        /** Return the bytes of a file, by the end of its name (`-12k.json`), unless another program made it. */
        private static function sizeOf(string $name): int
        {
            $end = substr($name, -6, 1) === 'k' ? substr($name, -12, 6) : '';
            $dash = strrpos($end, '-');
            return max(self::SPOOL_BLOCK, $dash === false ? 0 : 1024 * (int) substr($end, $dash + 1));
        }

        /** Return why this process cannot use the spool's folder, and what to do. */
        private function spoolTrouble(): string
        {
            $folder = $this->options['spool'];
            clearstatcache();
            if (!is_dir($folder)) {
                $isExcluded = strpos($this->warning, 'open_basedir') !== false;
                $said = $isExcluded ? 'open_basedir in php.ini excludes the folder' : 'there is no folder';
                return "$said $folder. Create it so that PHP's user and the relay's may use it: docs/spool.md";
            }
            $user = function_exists('posix_geteuid') ? 'user ' . posix_geteuid() : 'user';
            if (!is_writable($folder) || !is_readable($folder) || !is_executable($folder)) {
                return "PHP's $user may not read and write the folder $folder. Change its owner or its mode: docs/spool.md";
            }
            return "$folder: {$this->warning}";
        }

        // --- Requests from the relay ---

        /** Return the header Relay-Signature of this request. */
        private static function signature(): string
        {
            if (isset($_SERVER[self::SIGNATURE])) {
                return (string) $_SERVER[self::SIGNATURE];
            }
            $headers = function_exists('getallheaders') ? array_change_key_case(getallheaders()) : [];
            return (string) ($headers['relay-signature'] ?? '');
        }

        /** Throw unless one of the secrets signed the body within the last five minutes. */
        private static function verify(
            #[\SensitiveParameter]
            array $secrets,
            string $body,
            string $signature
        ): void {
            $secrets = array_filter($secrets, static fn($secret) => !in_array($secret, ['', null, false], true));
            if (!$secrets) {
                throw new RelayException('no_secret', "the secret is empty: use the relay's setting webhook_secret", 500);
            }
            if (array_filter($secrets, static fn($secret) => !is_string($secret) && !is_int($secret))) {
                // Not converted: true would be "1", and an array "Array", and everybody could sign with that.
                throw new RelayException('no_secret', 'the secret must be a string, or a list of strings', 500);
            }
            $time = '';
            $hashes = [];
            foreach (explode(',', $signature) as $field) {
                [$name, $value] = explode('=', trim($field), 2) + ['', ''];
                if ($name === 't' && preg_match('/^\d{1,12}$/D', $value)) {
                    $time = $value;
                } elseif ($name === 'v1') {
                    $hashes[] = strtolower($value);
                }
            }
            if ($time === '' || !$hashes) {
                $help = 'only the relay may call this address. If it did, check that the web server passes on that header';
                throw new RelayException('missing_signature', "the request has no valid header Relay-Signature: $help", 403);
            }
            $isRight = false;
            foreach ($secrets as $secret) {
                $expected = hash_hmac('sha256', "$time.$body", (string) $secret);
                foreach (array_slice($hashes, 0, 10) as $hash) {
                    $isRight = hash_equals($expected, $hash) || $isRight;
                }
            }
            if (!$isRight) {
                $help = "use the same text here and in the relay's setting webhook_secret, and the body as it came";
                throw new RelayException('wrong_signature', "the signature was not made with this secret: $help", 403);
            }
            $late = time() - (int) $time;
            if (abs($late) > self::WEBHOOK_WINDOW) {
                $said = $late > 0 ? "$late seconds ago" : -$late . ' seconds in the future';
                $help = 'Either somebody sent an old request again, or the clock of one machine is wrong: set both with NTP';
                $message = "the relay signed this $said by this machine's clock (" . gmdate('Y-m-d H:i:s') . " UTC). $help";
                throw new RelayException('old_signature', $message, 403);
            }
        }

        /** Return the events in a body. */
        private static function events(string $body): array
        {
            $events = json_decode($body, true)['events'] ?? null;
            $isEvents = is_array($events) && array_keys($events) === array_keys(array_values($events));
            foreach ($isEvents ? $events : [] as $event) {
                $isEvents = $isEvents && is_string($event['event'] ?? null);
            }
            if (!$isEvents) {
                throw new RelayException('invalid_json', 'the body has no list of events: is this the body as it came?', 400);
            }
            return $events;
        }

        // --- The breaker --- It is one number that all requests to this relay share, `milliseconds * 100 + failures in
        // a row`, set by compare-and-swap in APCu or in a file. Until that time no request is sent. After it, the
        // request that first moves the time is the trial, and others see the new time. The reason for the first failure
        // is stored next to the number.

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
                if ($now < $until && $until < $now + 100000) { // a later time cannot be ours: the clock was set back
                    return false;
                }
                $done = $now + (int) (($this->deadline - $this->start + 0.2) * 1000); // by then this attempt has been counted, or is dead
                return $this->isTrial = $this->swap($seen, $done * 100 + $seen % 100) !== false;
            } catch (\Error $e) { // a function is disabled, so there is no breaker
                return true;
            }
        }

        private function count(bool $well, string $why = ''): void
        {
            try {
                // Others count at the same time. If a few attempts fail, others have counted enough.
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

        /** Try once to count. Return false if another request was faster. */
        private function counted(bool $well, string $why): bool
        {
            $seen = $this->read();
            $failures = $seen % 100;
            if (!$well && $failures >= self::FAILURES && !$this->isTrial) {
                return true; // it began before the breaker opened; else a busy site would go straight to the longest pause
            }
            $failures = $well ? 0 : min($failures + 1, 99);
            $until = $failures < self::FAILURES ? 0 : self::clock() + (int) ($this->cooldown($failures) * 1000);
            $next = $until * 100 + $failures;
            return $seen === $next || $this->swap($seen, $next, $failures === self::FAILURES ? $why : null) !== false;
        }

        /** Return the seconds until the next attempt, after this many failures. */
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

        /** Return the reason why the breaker opened; '' if it is not known. */
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
         * Set the number from one value to another, and the reason unless it is null. Return false if the number has changed,
         * and null if it cannot be set.
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
            // The number has a fixed length and is written at once, so it can be read without a lock. The reason follows it.
            $text = sprintf('%-20d', $new) . ($why === null ? '' : sprintf("\n%-" . self::MAX_REASON . 's', $why));
            return rewind($file) && fwrite($file, $text) === strlen($text) ? true : null;
        }

        /** @return resource|false the breaker's file, in a folder that belongs to this user and that nobody else can enter */
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

        // --- Helpers ---

        private static function base64url(string $bytes): string
        {
            return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
        }

        /** Return seconds, for deadlines, by a clock that nobody can set, if PHP has one. */
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

        /** Return the number of this process; 0 if PHP cannot determine it. */
        private static function process(): int
        {
            if (function_exists('getmypid')) {
                return (int) getmypid();
            }
            return function_exists('posix_getpid') ? posix_getpid() : 0;
        }

        /** Return milliseconds since 1970, the only clock that several processes share. */
        private static function clock(): int
        {
            return (int) (microtime(true) * 1000);
        }
    }
}

// Classes, interfaces and traits share their names. This code sets no variable, as it may run in a page's own scope.
if (!\class_exists('Relay', false) && !\interface_exists('Relay', false) && !\trait_exists('Relay', false)) {
    \class_alias(Relay::class, 'Relay');
}
if (
    !\class_exists('RelayException', false) && !\interface_exists('RelayException', false)
    && !\trait_exists('RelayException', false)
) {
    \class_alias(RelayException::class, 'RelayException');
}
