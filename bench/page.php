<?php
/**
 * For php.py: a page with a table of 100 rows, which first pushes in the way that the parameter `push` names. Or:
 *
 *     php page.php NAME COUNT     pushes COUNT times in this way; prints the time and the CPU of each, in microseconds
 */

$address = getenv('PUSH_URL');
$data = ['text' => 'Your order is on its way.'];
$relay = $curl = null;

function push_once(string $how): void
{
    global $address, $data, $relay, $curl;
    if ($how === 'curl') {
        $curl = $curl ?? curl_init();
        curl_setopt_array($curl, [
            CURLOPT_URL => "$address/push",
            CURLOPT_POSTFIELDS => json_encode(['destination' => '42', 'data' => $data]),
            CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
            CURLOPT_RETURNTRANSFER => true,
        ]);
        $answer = curl_exec($curl);
        if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) !== 200) {
            throw new Exception("not accepted: $answer");
        }
    } elseif ($how !== 'none') {
        require_once getenv('RELAY_CLIENT');
        $relay = $relay ?? new Relay($address, ['transport' => $how === 'streams' ? 'streams' : 'curl', 'budget' => 20]);
        if ($how !== 'loaded' && !$relay->push('42', $data)) {
            throw new Exception($relay->lastError());
        }
    }
}

function cpu(): float
{
    $used = getrusage();
    return ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec']) * 1e6 + $used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec'];
}

if (PHP_SAPI === 'cli') {
    [, $how, $count] = $argv;
    push_once($how); // so that the file is loaded, and the connection is open if it is kept
    [$cpu, $start] = [cpu(), hrtime(true)];
    for ($i = 1; $i < $count; $i++) {
        push_once($how);
    }
    echo (hrtime(true) - $start) / 1e3 / max(1, $count - 1), ' ', (cpu() - $cpu) / max(1, $count - 1);
    exit;
}
push_once($_GET['push']);
$rows = '';
for ($i = 0; $i < 100; $i++) {
    $rows .= "<tr><td>$i</td><td>" . htmlspecialchars("Order <$i> & more") . "</td></tr>\n";
}
echo "<!doctype html><title>Orders</title><table>$rows</table>";
