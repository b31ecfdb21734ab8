#!/usr/bin/env bash
# exim.sh start DIR | stop DIR: a private Exim for the specs on a free port of 127.0.0.1, with STARTTLS by GnuTLS and its own CA.
# start prints KEY=VALUE lines once the port answers; what it cannot do it says on stderr, with status 1.
# Mail for any user at example.test lies in one maildir with CRLF line ends and nothing added; other domains are refused.
# From 127.0.0.2 the greeting is late, so that a client that talks before it is noticed.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
support=$(cd "$(dirname "$0")" && pwd)

die() {
	echo "exim.sh: $*" >&2
	exit 1
}

write_exim() {
	cat <<-END
		exim_path = $program
		spool_directory = $dir/spool
		log_file_path = $dir/log/%s
		pid_file_path = $dir/exim.pid
		primary_hostname = exim.test
		local_interfaces = 127.0.0.1
		daemon_smtp_ports = $1
		tls_advertise_hosts = *
		tls_certificate = $dir/pki/localhost.pem
		tls_privatekey = $dir/pki/localhost.key
		never_users =
		deliver_drop_privilege
		keep_environment =
		add_environment =
		message_size_limit = 50M
		accept_8bitmime
		chunking_advertise_hosts = *
		pipelining_connect_advertise_hosts = !127.0.0.2 : *
		prdr_enable
		host_lookup =
		rfc1413_hosts =
		smtp_accept_queue_per_connection = 0
		received_header_text =
		acl_smtp_connect = connect
		acl_smtp_rcpt = recipient
		begin acl
		connect:
		  accept hosts = 127.0.0.2
		    delay = 1s
		  accept
		recipient:
		  accept domains = example.test
		  deny message = relay not permitted
		begin routers
		all:
		  driver = accept
		  transport = maildir
		begin transports
		maildir:
		  driver = appendfile
		  maildir_format
		  directory = $dir/mail
		  use_crlf
	END
}

greets() { head -c 4 <"/dev/tcp/127.0.0.1/$1" | grep -q 220; }

start() {
	[ "$(id -u)" -eq 0 ] || die 'Exim must be started as root'
	program=$support/../../build/exim/usr/sbin/exim4
	[ -x "$program" ] || die 'Exim is not in build/exim (spec/support/install.sh test puts it there)'
	program=$(realpath "$program")
	umask 022
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
	cd "$dir"
	chmod 755 .
	bash "$support/pki.sh" "$dir/pki" >openssl.log 2>&1 || die "openssl failed: $(cat openssl.log)"
	mkdir spool log mail
	chown Debian-exim: spool log mail pki/localhost.key
	port=$(sh "$support/ports.sh" 1)
	write_exim "$port" >exim.conf
	trap 'cat "$dir"/log/* >&2' ERR
	"$program" -C "$dir/exim.conf" -bd -q1h
	for _ in $(seq 1200); do
		greets "$port" 2>/dev/null && break
		sleep 0.05
	done
	greets "$port"
	printf '%s\n' "PORT=$port" "CA_FILE=$dir/pki/ca.pem" "MAILDIR=$dir/mail"
}

# The daemon leads a process group of its own, in which all that it forks stays. (/proc: one that waits to be reaped is gone.)
stop() {
	local pid
	pid=$(cat "$1/exim.pid" 2>/dev/null) || return 0
	kill "$pid" 2>/dev/null || true
	for _ in $(seq 200); do
		[ -e "/proc/$pid/exe" ] || break
		sleep 0.05
	done
	kill -KILL -- "-$pid" 2>/dev/null || true
}

case ${1:-}:${2:-} in
start:?*) start "$2" ;;
stop:?*) stop "$2" ;;
*) die 'usage: exim.sh start DIR | stop DIR' ;;
esac
