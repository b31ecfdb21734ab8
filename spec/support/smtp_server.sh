#!/usr/bin/env bash
# smtp_server.sh start DIR | stop DIR: npm's smtp-server (smtp_server.js); the messages it takes lie in DIR, as 1, 2 …
. "$(dirname "$0")/daemon.sh"

start() {
	enter "$1"
	NODE_PATH=$support/../../build/npm/node_modules lead node "$support/smtp_server.js" "$dir" >port 2>log
	wait_for answered || true
	[ -s port ] || die "$(cat log) (spec/support/install.sh test installs it)"
	printf '%s\n' "PORT=$(cat port)" "CA_FILE=$dir/pki/ca.pem"
}

answered() { [ -s port ] || ! [ -e "/proc/$(cat pid)/exe" ]; }

stop() { end $(cat "$1/pid" 2>/dev/null); }

control "$@"
