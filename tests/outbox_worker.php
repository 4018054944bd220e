<?php
// One of the PHP processes of outbox_chaos.py: transactions that insert rows, of which a third is rolled back.
// php outbox_worker.php SOCKET DATABASE NUMBER SECONDS DESTINATIONS RELAY_URL

[, $socket, $database, $number, $seconds, $destinations, $url] = $argv;
require __DIR__ . '/../php/Relay.php';

$relay = new Relay($url, ['timeout' => 0.3]);
mt_srand((int) $number);
$end = microtime(true) + (float) $seconds;
$pdo = null;
$committed = $rolledBack = $unknown = 0;
for ($n = 1; microtime(true) < $end; $n++) {
    try {
        $pdo = $pdo ?? new PDO("mysql:unix_socket=$socket;dbname=$database;charset=utf8mb4", 'root', '', [
            PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
            PDO::ATTR_TIMEOUT => 2,
        ]);
        $pdo->beginTransaction();
        $insert = $pdo->prepare('INSERT INTO relay_outbox (destination, data, is_json) VALUES (?, ?, 1)');
        $rows = mt_rand(1, 40) === 1 ? mt_rand(300, 600) : mt_rand(1, 5);
        for ($row = 0; $row < $rows; $row++) {
            $to = 'd' . mt_rand(1, (int) $destinations);
            $insert->execute([$to, json_encode(['by' => (int) $number, 'n' => $n, 'row' => $row])]);
            if ($rows < 10 && mt_rand(1, 4) === 1) {
                usleep(mt_rand(0, 20000));
            }
        }
        if (mt_rand(1, 3) === 1) {
            $pdo->rollBack();
            $rolledBack++;
            continue;
        }
        // The row of `committed` tells what was committed, also if the database is killed before it answers.
        $pdo->prepare('INSERT INTO committed (worker, n, row_count) VALUES (?, ?, ?)')->execute([$number, $n, $rows]);
        $pdo->commit();
        $committed++;
        if (mt_rand(1, 2) === 1) {
            $relay->ring();
        }
        usleep(mt_rand(0, 40000));
    } catch (PDOException $error) {
        $pdo = null;
        $unknown++;
        usleep(100000);
    }
}
echo json_encode(['committed' => $committed, 'rolled_back' => $rolledBack, 'failed' => $unknown]), "\n";
