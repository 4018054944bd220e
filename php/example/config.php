<?php
if (!defined('IN_CHAT')) { // a browser requested this file directly
    http_response_code(404);
    exit;
}

// The chat's settings. Each of them can be set in the environment as well (Apache: SetEnv CHAT_SECRET …).

return [
    // The relay's address for PHP, and one of its push_keys if it runs on another machine.
    'relay' => getenv('CHAT_RELAY') ?: 'http://127.0.0.1:8080',
    'key' => getenv('CHAT_KEY') ?: '',

    // The relay's address for browsers: a path on this host, or a URL such as https://push.example.com.
    'relay_public' => getenv('CHAT_RELAY_PUBLIC') ?: '/relay/',

    // How a browser proves that it may listen.
    //   secret set:  by a token that PHP signs (the relay's setting secret has the same value)
    //   cookie set:  by its session cookie (the relay's setting id_cookie has the same name, and so has session.name)
    //   neither:     everybody who knows the destination's name may listen
    'secret' => getenv('CHAT_SECRET') ?: '',
    'cookie' => getenv('CHAT_COOKIE') ?: '',

    // The folder for messages: PHP can write to it, and the web server does not serve it. README.md has the command
    // that creates /var/lib/relay-chat. A reboot empties the temporary folder.
    'data' => getenv('CHAT_DATA')
        ?: (is_writable('/var/lib/relay-chat') ? '/var/lib/relay-chat/' : sys_get_temp_dir() . '/relay-chat-') . md5(__DIR__),
];
