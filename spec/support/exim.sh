#!/usr/bin/env bash
# exim.sh start DIR | stop DIR: a private Exim for the specs on a free port of 127.0.0.1, with STARTTLS by GnuTLS and its own CA.
# Mail for any user at example.test lies in one maildir with CRLF line ends and nothing added; other domains are refused.
# From 127.0.0.2 the greeting is late, so that a client that talks before it is noticed.
. "$(dirname "$0")/daemon.sh"

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

start() {
	need_root
	program=$support/../../build/exim/usr/sbin/exim4
	[ -x "$program" ] || die 'Exim is not in build/exim (spec/support/install.sh test puts it there)'
	program=$(realpath "$program")
	enter "$1"
	mkdir spool log mail
	chown Debian-exim: spool log mail pki/localhost.key
	port=$(sh "$support/ports.sh" 1)
	write_exim "$port" >exim.conf
	trap 'cat "$dir"/log/* >&2' ERR
	"$program" -C "$dir/exim.conf" -bd -q1h
	wait_for greets "$port"
	printf '%s\n' "PORT=$port" "CA_FILE=$dir/pki/ca.pem" "MAILDIR=$dir/mail"
}

# The daemon leads a group of its own, in which all that it forks stays.
stop() { end $(cat "$1/exim.pid" 2>/dev/null); }

control "$@"
