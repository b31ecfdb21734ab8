#!/usr/bin/env bash
# opensmtpd.sh start DIR | stop DIR: a private OpenSMTPD for the specs on a free port of 127.0.0.1, with STARTTLS, which this
# version cannot do with OpenSSL 3: it answers the handshake with an alert. It takes mail for anybody and keeps it in its queue.
# start prints KEY=VALUE lines once the port answers; what it cannot do it says on stderr, with status 1.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
support=$(cd "$(dirname "$0")" && pwd)

die() {
	echo "opensmtpd.sh: $*" >&2
	exit 1
}

greets() { head -c 4 <"/dev/tcp/127.0.0.1/$1" | grep -q 220; }

start() {
	[ "$(id -u)" -eq 0 ] || die 'OpenSMTPD must be started as root'
	program=$support/../../build/opensmtpd/usr/sbin/smtpd
	[ -x "$program" ] || die 'OpenSMTPD is not in build/opensmtpd (spec/support/install.sh test puts it there)'
	program=$(realpath "$program") # it runs itself by this path
	umask 022
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
	cd "$dir"
	chmod 755 .
	bash "$support/pki.sh" "$dir/pki" >openssl.log 2>&1 || die "openssl failed: $(cat openssl.log)"
	port=$(sh "$support/ports.sh" 1)
	cat >smtpd.conf <<-END
		pki localhost cert "$dir/pki/localhost.pem"
		pki localhost key "$dir/pki/localhost.key"
		listen on 127.0.0.1 port $port tls pki localhost
		action "keep" mbox
		match from any for any action "keep"
	END
	chmod 600 smtpd.conf pki/localhost.key
	# its folders are fixed: they are made of memory, and nobody else sees them
	unshare -m sh -c 'mount -t tmpfs none /var/spool && mount -t tmpfs none /var/lib && mkdir -p /var/lib/opensmtpd/empty &&
		mkdir -m 711 /var/spool/smtpd && exec "$0" -d -f "$1"' "$program" "$dir/smtpd.conf" >smtpd.log 2>&1 </dev/null &
	echo $! >pid
	for _ in $(seq 1200); do
		greets "$port" 2>/dev/null && break
		sleep 0.05
	done
	greets "$port" || die "no greeting: $(cat smtpd.log)"
	printf '%s\n' "PORT=$port" "CA_FILE=$dir/pki/ca.pem"
}

stop() { kill "$(cat "$1/pid")" 2>/dev/null || true; }

case ${1:-}:${2:-} in
start:?*) start "$2" ;;
stop:?*) stop "$2" ;;
*) die 'usage: opensmtpd.sh start DIR | stop DIR' ;;
esac
