#!/usr/bin/env bash
# opensmtpd.sh start DIR | stop DIR: a private OpenSMTPD for the specs on a free port of 127.0.0.1, with STARTTLS, which this
# version cannot do with OpenSSL 3: it answers the handshake with an alert. It takes mail for anybody and keeps it in its queue.
. "$(dirname "$0")/daemon.sh"

start() {
	need_root
	program=$support/../../build/opensmtpd/usr/sbin/smtpd
	[ -x "$program" ] || die 'OpenSMTPD is not in build/opensmtpd (spec/support/install.sh test puts it there)'
	program=$(realpath "$program") # it runs itself by this path
	enter "$1"
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
	lead unshare -m sh -c 'mount -t tmpfs none /var/spool && mount -t tmpfs none /var/lib && mkdir -p /var/lib/opensmtpd/empty &&
		mkdir -m 711 /var/spool/smtpd && exec "$0" -d -f "$1"' "$program" "$dir/smtpd.conf" >smtpd.log 2>&1
	wait_for greets "$port" || die "no greeting: $(cat smtpd.log)"
	printf '%s\n' "PORT=$port" "CA_FILE=$dir/pki/ca.pem"
}

stop() { end $(cat "$1/pid" 2>/dev/null); }

control "$@"
