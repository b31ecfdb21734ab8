#!/usr/bin/env bash
# postfix.sh start DIR | stop DIR: a private Postfix for the specs, with its own CA, Dovecot for SASL, on free ports of 127.0.0.1;
# on CYRUS_PORT, which speaks TLS at once, Cyrus for SASL, where saslpasswd2 is installed.
# Users: "user" / "pass word", "user2@example.test" / "pässwörd". Mail for user@example.test and user2@example.test goes
# to maildirs of the system user nobody; any other recipient is refused.
. "$(dirname "$0")/daemon.sh"

write_postfix() {
	local virtual=$dir/mail
	mkdir config spool data log mail
	chown postfix data
	chown "$owner" mail
	cat >config/main.cf <<-END
		compatibility_level = 3.6
		queue_directory = $dir/spool
		data_directory = $dir/data
		command_directory = /usr/sbin
		daemon_directory = /usr/lib/postfix/sbin
		maillog_file = $dir/log/maillog
		maillog_file_prefixes = $dir
		inet_interfaces = 127.0.0.1
		inet_protocols = ipv4
		myhostname = postfix.test
		mydestination =
		mynetworks = 127.0.0.0/8
		alias_maps =
		alias_database =
		local_recipient_maps =
		local_transport = error:no local users
		default_transport = error:no way out
		virtual_mailbox_domains = example.test
		virtual_mailbox_base = $virtual
		virtual_mailbox_maps = inline:{ {user@example.test=user/} {user2@example.test=user2/} {üser@example.test=utf8user/} }
		virtual_uid_maps = static:$(id -u "$owner")
		virtual_gid_maps = static:$(id -g "$owner")
		virtual_mailbox_limit = 0
		mailbox_size_limit = 0
		message_size_limit = 52428800
		smtputf8_enable = yes
		smtpd_tls_cert_file = $dir/pki/localhost.pem
		smtpd_tls_key_file = $dir/pki/localhost.key
		smtpd_tls_security_level = may
		smtpd_tls_session_cache_database =
		smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
		smtpd_sasl_type = dovecot
		smtpd_sasl_path = private/auth
		cyrus_sasl_config_path = $dir/config/sasl
		smtpd_sasl_security_options = noanonymous
		smtpd_error_sleep_time = 0
		smtpd_client_connection_count_limit = 0
		smtpd_peername_lookup = no
		smtp_dns_support_level = disabled
		append_dot_mydomain = no
		biff = no
	END
	cat >config/master.cf <<-END
		127.0.0.1:$1 inet n - n - - smtpd
		127.0.0.1:$2 inet n - n - - smtpd
		  -o syslog_name=postfix/submission
		  -o smtpd_tls_security_level=encrypt
		  -o smtpd_tls_auth_only=yes
		  -o smtpd_sasl_auth_enable=yes
		  -o mynetworks=
		127.0.0.1:$3 inet n - n - - smtpd
		  -o syslog_name=postfix/smtps
		  -o smtpd_tls_wrappermode=yes
		  -o smtpd_sasl_auth_enable=yes
		  -o mynetworks=
		127.0.0.1:$4 inet n - n - - smtpd
		  -o syslog_name=postfix/cyrus
		  -o smtpd_tls_wrappermode=yes
		  -o smtpd_sasl_auth_enable=yes
		  -o smtpd_sasl_type=cyrus
		  -o smtpd_sasl_path=smtpd
		  -o smtpd_sasl_local_domain=postfix.test
		  -o mynetworks=
		pickup unix n - n 60 1 pickup
		cleanup unix n - n - 0 cleanup
		qmgr unix n - n 300 1 qmgr
		tlsmgr unix - - n 1000? 1 tlsmgr
		rewrite unix - - n - - trivial-rewrite
		bounce unix - - n - 0 bounce
		defer unix - - n - 0 bounce
		trace unix - - n - 0 bounce
		flush unix n - n 1000? 0 flush
		proxymap unix - - n - - proxymap
		showq unix n - n - - showq
		error unix - - n - - error
		retry unix - - n - - error
		virtual unix - n n - - virtual
		anvil unix - - n - 1 anvil
		postlog unix-dgram n - n - 1 postlogd
	END
}

write_cyrus() {
	mkdir config/sasl
	cat >config/sasl/smtpd.conf <<-END
		pwcheck_method: auxprop
		auxprop_plugin: sasldb
		sasldb_path: $dir/data/sasldb
		mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256
	END
	printf 'pass word' | saslpasswd2 -p -c -f data/sasldb -u postfix.test user
	printf 'pässwörd' | saslpasswd2 -p -c -f data/sasldb -u example.test user2
	chown postfix data/sasldb
}

write_dovecot() {
	mkdir dovecot
	printf '%s\n' 'user:{PLAIN}pass word' 'user2@example.test:{PLAIN}pässwörd' >dovecot/users
	chmod 644 dovecot/users
	{
		case $(dovecot --version) in
		2.[0-3].*)
			cat <<-END
				disable_plaintext_auth = no
				passdb {
				  driver = passwd-file
				  args = scheme=PLAIN username_format=%u $dir/dovecot/users
				}
			END
			;;
		*)
			cat <<-END
				dovecot_config_version = 2.4.0
				dovecot_storage_version = 2.4.0
				auth_allow_cleartext = yes
				passdb passwd-file {
				  passwd_file_path = $dir/dovecot/users
				}
			END
			;;
		esac
		cat <<-END
			base_dir = $dir/dovecot/run
			state_dir = $dir/dovecot/state
			log_path = $dir/log/dovecot
			protocols =
			ssl = no
			auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
			auth_failure_delay = 0
			service auth {
			  unix_listener $dir/spool/private/auth {
			    mode = 0666
			  }
			}
			service anvil {
			  chroot =
			  # no pause after a wrong password
			  unix_listener anvil-auth-penalty {
			    mode = 0
			  }
			}
			service stats {
			  chroot =
			}
		END
	} >dovecot/dovecot.conf
}

answers() { : <"/dev/tcp/127.0.0.1/$1"; }

start() {
	need_root
	owner=nobody
	for program in postfix dovecot openssl; do
		command -v $program >/dev/null || die "$program is not installed (spec/support/install.sh test installs it)"
	done
	enter "$1" postfix.test
	plain=$(sh "$support/ports.sh" 4)
	submission=$((plain + 1)) smtps=$((plain + 2)) cyrus=$((plain + 3))
	write_postfix "$plain" "$submission" "$smtps" "$cyrus"
	write_dovecot
	if command -v saslpasswd2 >/dev/null; then write_cyrus; else cyrus=; fi

	trap 'stop "$dir"; cat "$dir"/log/* >&2' ERR
	postfix -c "$dir/config" check >"$dir/log/check" 2>&1
	dovecot -c "$dir/dovecot/dovecot.conf"
	wait_for test -S "$dir/spool/private/auth"
	postfix -c "$dir/config" start >"$dir/log/start" 2>&1
	wait_for greets "$plain"
	wait_for greets "$submission"
	wait_for answers "$smtps"
	printf '%s\n' "PLAIN_PORT=$plain" "SUBMISSION_PORT=$submission" "SMTPS_PORT=$smtps" "CYRUS_PORT=$cyrus" \
		"CA_FILE=$dir/pki/ca.pem" "MAILDIR=$dir/mail/user" "LOG=$dir/log/maillog"
}

stop() { end $(cat "$1/spool/pid/master.pid" "$1/dovecot/run/master.pid" 2>/dev/null); }

control "$@"
