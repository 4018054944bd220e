<!doctype html>
<title>A page of <?= PHP_SAPI ?></title>
<script src="<?= htmlspecialchars($_GET['relay'] ?? '') ?>/relay/static/relay.js"></script>
<script>
  const got = [];
  const statuses = [];
  const relay = Relay.connect(undefined, {
    transports: [<?= json_encode($_GET['transport']) ?>],
    reconnectDelay: 100,
    reconnectDelayMax: 500,
  });
  relay.on("push", data => got.push(data));
  relay.on("status", status => statuses.push(status));
  const registered = relay.register(<?= json_encode($_GET['id']) ?>);
</script>
