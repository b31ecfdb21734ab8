#!/usr/bin/env bash
# scram_plus.sh start DIR 1.3|1.2|1.2-old | stop DIR: a server whose logins are bound to the TLS connection (scram_plus.py), by that
# version of TLS; "1.2-old" is 1.2 without the extended master secret.
. "$(dirname "$0")/daemon.sh"

start() {
	/usr/bin/python3 -c 'import OpenSSL, ctypes; ctypes.CDLL("libgsasl.so.18")' || die 'what it needs is missing'
	enter "$1"
	lead /usr/bin/python3 "$support/scram_plus.py" "$dir" pki/localhost.pem pki/localhost.key "$2" >out 2>&1
	wait_for test -s port || die "$(cat out)"
	printf '%s\n' "PORT=$(cat port)" "CA_FILE=$dir/pki/ca.pem"
}

stop() { end $(cat "$1/pid" 2>/dev/null); }

control "$@"
