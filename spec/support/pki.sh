#!/usr/bin/env bash
# pki.sh DIR [NAME...]: makes DIR with a CA of its own (ca.pem) and a certificate it signed for localhost, 127.0.0.1 and those names
# (localhost.pem, .key).
set -euo pipefail

names=
for name in "${@:2}"; do names+=,DNS:$name; done
mkdir "$1"
cd "$1"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=smtp specs CA' \
	-addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout ca.key -out ca.pem
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=localhost' \
	-CA ca.pem -CAkey ca.key -addext 'basicConstraints=critical,CA:FALSE' \
	-addext 'subjectAltName=DNS:localhost,IP:127.0.0.1'"$names" -keyout localhost.key -out localhost.pem
