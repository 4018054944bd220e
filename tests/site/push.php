<?php
// The README's lines.
$curl = curl_init($_SERVER['PUSH_URL']);
curl_setopt($curl, CURLOPT_POST, true);
curl_setopt($curl, CURLOPT_POSTFIELDS, http_build_query(['destination' => $_POST['to'], 'data' => $_POST['data']]));
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
echo curl_exec($curl);
