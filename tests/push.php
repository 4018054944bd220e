<?php
// A push as a PHP developer writes it: php push.php URL DESTINATION DATA
$curl = curl_init($argv[1]);
curl_setopt($curl, CURLOPT_POST, true);
curl_setopt($curl, CURLOPT_POSTFIELDS, http_build_query(['destination' => $argv[2], 'data' => $argv[3]]));
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
echo curl_exec($curl);
