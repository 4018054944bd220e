<?php // The page; index.php sets its variables.
if (!defined('IN_CHAT')) { // a browser requested this file directly
    http_response_code(404);
    exit;
}
?>
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Chat</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="<?= h($base) ?>chat.css">
<?php if ($name !== ''): ?>
  <script src="<?= h($public) ?>static/relay.js" defer></script>
  <script src="<?= h($base) ?>chat.js" defer></script>
<?php endif ?>
</head>
<?php if ($name === ''): ?>
<body class="door">
  <main class="login">
    <h1>Chat</h1>
    <p>Open it in two browsers and write from one to the other.</p>
    <form method="post" action="<?= h($base) ?>">
      <input type="hidden" name="csrf" value="<?= h($csrf) ?>">
      <label for="name">Your name</label>
      <input id="name" name="name" maxlength="30" autocomplete="nickname" required autofocus>
      <button>Join</button>
    </form>
  </main>
</body>
<?php else: ?>
<body>
  <header>
    <h1>Chat</h1>
    <p id="state" role="status" data-status="offline">Not live</p>
    <form method="post" action="<?= h($base) ?>">
      <input type="hidden" name="csrf" value="<?= h($csrf) ?>">
      <span class="me"><?= h($name) ?></span>
      <button name="logout" value="1" class="quiet">Leave</button>
    </form>
  </header>
  <main id="scroll" tabindex="0" aria-label="Messages">
    <ol id="messages" aria-live="polite">
<?php foreach ($messages as $message): ?>
<?php $own = ($message['author'] ?? '') === $author ? 'own ' : '' ?>
      <li data-id="<?= $message['id'] ?>" class="<?= $own ?>hue<?= $message['hue'] ?>">
        <p class="by">
          <b><?= h($message['name']) ?></b>
          <time datetime="<?= gmdate('c', $message['time']) ?>"><?= gmdate('H:i', $message['time']) ?></time>
        </p>
        <p class="text"><?= h($message['text']) ?></p>
      </li>
<?php endforeach ?>
    </ol>
    <p id="empty">Nobody has said anything yet.</p>
  </main>
  <form id="say" method="post" action="<?= h($base) ?>">
    <input type="hidden" name="csrf" value="<?= h($csrf) ?>">
    <label class="unseen" for="text">Message</label>
    <textarea id="text" name="text" rows="1" maxlength="1000" placeholder="Message" autocomplete="off" required autofocus></textarea>
    <button>Send</button>
    <output id="problem" for="text"></output>
  </form>
  <script type="application/json" id="chat"><?= js(['author' => $author, 'relay' => $public, 'listen' => $listen]) ?></script>
</body>
<?php endif ?>
</html>
