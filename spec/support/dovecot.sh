#!/usr/bin/env bash
# dovecot.sh start DIR RELAY_PORT | stop DIR: a private Dovecot submission server for the specs with its own CA, on free
# ports of 127.0.0.1; it hands mail to the SMTP server on RELAY_PORT.
# Users: "user" / "pass word", "user2@example.test" / "pässwörd", by every mechanism with a password; whoever has a token (JWT,
# HS256, signed with TOKEN_KEY), by its "sub"; whoever has a certificate of the CA, by its common name (here: "user").
. "$(dirname "$0")/daemon.sh"

# What each version calls its own.
write_2_3() {
	cat >oauth2.conf <<-END
		introspection_mode = local
		local_validation_key_dict = fs:posix:prefix=$dir/keys/
		username_attribute = sub
	END
	cat <<-END
		ssl_cert = <$dir/pki/localhost.pem
		ssl_key = <$dir/pki/localhost.key
		ssl_ca = <$dir/pki/ca.pem
		ssl_verify_client_cert = yes
		ssl_require_crl = no
		ssl_cert_username_field = commonName
		disable_plaintext_auth = yes
		mail_location = maildir:$dir/mail/%u
		passdb {
		  driver = passwd-file
		  mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
		  args = scheme=PLAIN username_format=%u $dir/users
		}
		passdb {
		  driver = oauth2
		  mechanisms = xoauth2 oauthbearer
		  args = $dir/oauth2.conf
		}
		passdb {
		  driver = static
		  mechanisms = external
		  args = nopassword=yes
		}
		userdb {
		  driver = static
		  args = uid=nobody gid=nogroup home=$dir/mail/%u allow_all_users=yes
		}
	END
}

write_2_4() {
	cat <<-END
		dovecot_config_version = 2.4.0
		dovecot_storage_version = 2.4.0
		ssl_server_cert_file = $dir/pki/localhost.pem
		ssl_server_key_file = $dir/pki/localhost.key
		ssl_server_ca_file = $dir/pki/ca.pem
		ssl_server_request_client_cert = yes
		ssl_server_require_crl = no
		ssl_server_cert_username_field = commonName
		auth_allow_cleartext = no
		mail_driver = maildir
		mail_path = $dir/mail/%{user}
		passdb passwd-file {
		  mechanisms_filter = plain login cram-md5 scram-sha-1 scram-sha-256
		  passwd_file_path = $dir/users
		}
		passdb static {
		  mechanisms_filter = external
		  fields {
		    nopassword = yes
		  }
		}
		oauth2 {
		  introspection_mode = local
		  username_attribute = sub
		  oauth2_local_validation {
		    dict fs {
		      fs posix {
		        prefix = $dir/keys/
		      }
		    }
		  }
		}
		userdb static {
		  allow_all_users = yes
		  fields {
		    uid = nobody
		    gid = nogroup
		    home = $dir/mail/%{user}
		  }
		}
	END
}

# start RELAY SUBMISSION SUBMISSIONS
write_dovecot() {
	case $(dovecot --version) in 2.[0-3].*) write_2_3 ;; *) write_2_4 ;; esac
	cat <<-END
		base_dir = $dir/run
		state_dir = $dir/state
		log_path = $dir/log
		protocols = submission
		listen = 127.0.0.1
		hostname = dovecot.test
		default_login_user = dovenull
		default_internal_user = dovecot
		ssl = required
		auth_ssl_username_from_cert = yes
		auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer external
		auth_failure_delay = 0
		mail_uid = nobody
		mail_gid = nogroup
		first_valid_uid = 1
		submission_relay_host = 127.0.0.1
		submission_relay_port = $1
		service submission-login {
		  inet_listener submission {
		    port = $2
		  }
		  inet_listener submissions {
		    port = $3
		    ssl = yes
		  }
		  chroot =
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
}

start() {
	need_root
	[ -x /usr/lib/dovecot/submission-login ] || die 'dovecot-submissiond is not installed (spec/support/install.sh test installs it)'
	enter "$1"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=user' -CA pki/ca.pem \
		-CAkey pki/ca.key -addext 'basicConstraints=critical,CA:FALSE' -addext 'extendedKeyUsage=clientAuth' \
		-keyout pki/user.key -out pki/user.pem >openssl.log 2>&1 || die "openssl failed: $(cat openssl.log)"
	printf '%s\n' 'user:{PLAIN}pass word' 'user2@example.test:{PLAIN}pässwörd' >users
	chmod 644 users
	mkdir -p mail keys/default/HS256
	chown nobody:nogroup mail
	printf 'the key of the specs for 32 byte' >token_key
	base64 -w0 token_key >keys/default/HS256/default
	submission=$(sh "$support/ports.sh" 2)
	submissions=$((submission + 1))
	write_dovecot "$2" "$submission" "$submissions" >dovecot.conf
	trap 'stop "$dir"; cat "$dir/log" >&2' ERR
	dovecot -c "$dir/dovecot.conf"
	wait_for greets "$submission"
	printf '%s\n' "PORT=$submission" "SUBMISSIONS_PORT=$submissions" "CA_FILE=$dir/pki/ca.pem" "CLIENT_CERT=$dir/pki/user.pem" \
		"CLIENT_KEY=$dir/pki/user.key" "TOKEN_KEY=$(cat token_key)" "LOG=$dir/log"
}

stop() { end $(cat "$1/run/master.pid" 2>/dev/null); }

control "$@"
