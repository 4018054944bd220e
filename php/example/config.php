<?php
if (!defined('IN_CHAT')) { // a browser asked for this file itself
    http_response_code(404);
    exit;
}

// What the chat needs to know. Each may come from the environment as well (Apache: SetEnv CHAT_SECRET …).

return [
    // The relay as PHP reaches it, and a key of its push_keys where it runs on another machine.
    'relay' => getenv('CHAT_RELAY') ?: 'http://127.0.0.1:8080',
    'key' => getenv('CHAT_KEY') ?: '',

    // The relay as browsers reach it: a path on this host, or an address such as https://push.example.com.
    'relay_public' => getenv('CHAT_RELAY_PUBLIC') ?: '/relay/',

    // How a browser proves that it may listen.
    //   secret set:  PHP signs a token for it (the relay's setting secret is the same)
    //   cookie set:  by its session cookie (the relay's setting id_cookie is this name, as session.name of php.ini)
    //   neither:     whoever knows the name of the destination may listen
    'secret' => getenv('CHAT_SECRET') ?: '',
    'cookie' => getenv('CHAT_COOKIE') ?: '',

    // Where messages are kept: a folder that PHP may write and the web server does not show. README.md has the line that
    // makes the first one; the temporary folder is emptied by a reboot.
    'data' => getenv('CHAT_DATA')
        ?: (is_writable('/var/lib/relay-chat') ? '/var/lib/relay-chat/' : sys_get_temp_dir() . '/relay-chat-') . md5(__DIR__),
];
