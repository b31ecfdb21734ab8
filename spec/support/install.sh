#!/usr/bin/env bash
# install.sh demo|test|bench: installs what `make demo` (and so on) needs and this machine lacks, with apt-get.
# Whatever is there already is left alone. Without apt-get it only says what is missing, by its Debian names.
# Exim and OpenSMTPD, which Debian does not install beside Postfix, are unpacked into build/; packages of npm go to build/npm.
# It fails where something cannot be had that nothing goes without; what else cannot be had is said, and left to be skipped.
# install.sh missing: only prints what `make test` would use and this machine lacks, a line each.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PATH:/usr/sbin:/sbin:/usr/games

header() { [ -e "/usr/include/$1" ] || echo "#include <$1>" | cc -E -; }

lua_header() {
	local name=$1 flags
	[ "$name" != luajit ] || name=luajit-2.1
	[ -e "/usr/include/$name/lua.h" ] && return
	flags=$(pkg-config --cflags "$1" || pkg-config --cflags "${1/lua5/lua-5}")
	# shellcheck disable=SC2086 # several flags
	echo '#include <lua.h>' | cc $flags -E -
}

trust_store() { ls /etc/ssl/certs/ca-certificates.crt || ls /etc/pki/tls/certs/ca-bundle.crt || ls /etc/ssl/cert.pem; }

npm_packages=(mailparser@3.9.1 mailauth@4.8.6 smtp-server@3.18.0 nodemailer@10.6.0)

npm_here() { grep -q "\"version\": \"${1#*@}\"" "build/npm/node_modules/${1%@*}/package.json"; }
browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
python_has() { /usr/bin/python3 -c "$1"; }
opensmtpd_here() {
	id opensmtpd && id opensmtpq && [ -x build/opensmtpd/usr/sbin/smtpd ] &&
		! ldd build/opensmtpd/usr/sbin/smtpd | grep "not found"
}
luanti_here() {
	command -v /usr/libexec/luanti/luantiserver || command -v /usr/lib/minetest/minetestserver || command -v luantiserver ||
		command -v minetestserver
}
c_of_32_bits() { echo '#include <stdio.h>' | gcc -m32 -idirafter "/usr/include/$(gcc -print-multiarch)" -fsyntax-only -xc -; }
packaged() { command -v "$1" || [ -n "$(apt-cache madison "$1")" ]; }
busted_here() { "$1" "$(command -v busted)" --version; }
exim_here() { id Debian-exim && build/exim/usr/sbin/exim4 -C /dev/null -bV; }

# want PACKAGE PURPOSE PROBE...: the package is missing where the probe fails; PACKAGE may name a second choice, "a|b".
# need: likewise, and nothing goes without it.
missing=() needed=()
want() {
	local package=$1 purpose=$2
	shift 2
	"$@" >/dev/null 2>&1 || missing+=("$package ($purpose)")
}
need() {
	local before=${#missing[@]}
	want "$@"
	[ ${#missing[@]} -eq "$before" ] || needed+=("${missing[-1]}")
}

# lua need|want LUA
lua() {
	local package=$2 headers=lib$2-dev
	case $2 in
	lua5.1) headers=liblua5.1-0-dev ;;
	luajit) package='luajit2|luajit' headers='libluajit2-5.1-dev|libluajit-5.1-dev' ;;
	esac
	$1 "$package" "the interpreter $2" command -v "$2"
	$1 "$headers" "lua.h of $2" lua_header "$2"
}

look() {
	missing=() needed=()
	need gcc 'C compiler' command -v cc
	need libc6-dev 'C headers' header stdio.h
	need make 'make' command -v make
	need pkg-config 'finds the headers' command -v pkg-config
	need libssl-dev 'OpenSSL headers' header openssl/ssl.h
	need ca-certificates 'system trust store' trust_store
	lua need "$lua"
	case $1 in
	test) look_test && look_bench ;;
	bench) look_bench ;;
	esac
}

# what smtp is measured beside, and what counts
look_bench() {
	want postfix 'has smtp-source' command -v smtp-source
	want libcurl4-openssl-dev 'libcurl to compare with' header curl/curl.h
	want lua-socket 'LuaSocket to compare with' "$lua" -e 'require "socket.smtp"'
	want lua-sec 'its TLS' "$lua" -e 'require "ssl"'
	want lua-posix 'forks' lua5.1 -e 'require "posix"'
	need openssl 'makes test certificates' command -v openssl
	need python3 'runs the benchmark' command -v python3
	want strace 'counts system calls' command -v strace
	want valgrind 'counts instructions' command -v valgrind
	want nodejs 'runs the packages of npm' command -v node
	want npm 'installs them' command -v npm
	for package in "${npm_packages[@]}"; do want "npm:$package" 'an independent reader, client or server' npm_here "$package"; done
}

look_test() {
	local each luas=(lua5.1 lua5.2 lua5.3 luajit)
	if packaged lua5.5 >/dev/null 2>&1; then luas+=(lua5.5); fi # it is not everywhere yet
	need lua-busted 'runs the specs' busted_here "$lua"
	need procps 'finds the processes of a run' command -v pgrep
	for each in "${luas[@]}"; do
		lua want "$each"
		! command -v busted >/dev/null || want lua-busted "runs the specs under $each" busted_here "$each"
	done
	want lua-check 'checks the Lua code' command -v luacheck
	want luarocks 'packaging specs' command -v luarocks
	want lua-socket 'sockets of another make' lua5.4 -e 'require "socket"'
	want lua-cqueues 'an event loop' lua5.4 -e 'require "cqueues"'
	want lua-luv 'an event loop' lua5.4 -e 'require "luv"'
	want lua-copas 'an event loop' lua5.1 -e 'require "copas"'
	want lua-posix 'forks' lua5.1 -e 'require "posix"'
	want love 'a game engine' command -v love
	want 'minetest-server|luanti-server' 'a game server' luanti_here
	want haproxy 'a load balancer to send from' command -v haproxy
	want prosody 'a chat server to send from' command -v prosody
	want lua-event 'another loop for it' lua5.4 -e 'require "luaevent"'
	want tarantool 'a database to send from' command -v tarantool
	want git 'fetches rocks' command -v git
	want zip 'packs rocks' command -v zip
	want unzip 'unpacks rocks' command -v unzip
	want clang-tidy 'checks the C code' command -v clang-tidy
	want clang-format 'checks how it is set' command -v clang-format
	want musl-tools 'another C library to check it with' command -v musl-gcc
	want libc6-dev-i386 'a system of 32 bits to check it for' c_of_32_bits
	want postfix 'a real mail server' command -v postfix
	want dovecot-core 'authentication for Postfix' command -v dovecot
	want dovecot-lmtpd 'a real LMTP server' ls /usr/lib/dovecot/lmtp
	want dovecot-submissiond 'a real submission server' ls /usr/lib/dovecot/submission
	want sasl2-bin 'logins of another make for Postfix' command -v saslpasswd2
	want libsasl2-modules 'its mechanisms' ls /usr/lib/*/sasl2/libscram.so
	want libsasl2-modules-db 'its users' ls /usr/lib/*/sasl2/libsasldb.so
	want python3-openssl 'channel binding to compare with' python_has 'import OpenSSL'
	want libgsasl18 'an independent SCRAM-PLUS server' python_has 'import ctypes; ctypes.CDLL("libgsasl.so.18")'
	want libidn12 'SASLprep of unusual passwords' python_has 'import ctypes; ctypes.CDLL("libidn.so.12")'
	want microsocks 'a SOCKS proxy' command -v microsocks
	want tinyproxy 'an HTTP proxy' tinyproxy -v
	want 'nginx-light|nginx' 'a web server to send from' command -v nginx
	want libnginx-mod-http-lua 'its Lua' ls /usr/lib/nginx/modules/ngx_http_lua_module.so
	want lua-resty-core 'its Lua' ls /usr/share/lua/5.1/resty/core.lua
	want swaks 'an independent client' command -v swaks
	want libnet-ssleay-perl 'TLS for swaks' perl -MNet::SSLeay -e1
	want curl 'an independent client' command -v curl
	want python3-dkim 'checks DKIM signatures' python_has 'import dkim'
	want python3-nacl 'Ed25519 for python3-dkim' python_has 'import nacl.signing'
	want python3-gi 'GMime for Python' python_has 'import gi'
	want gir1.2-gmime-3.0 'an independent reader of messages' python_has 'import gi; gi.require_version("GMime", "3.0")'
	want libidn2-0 'international domain names to compare with' python_has 'import ctypes; ctypes.CDLL("libidn2.so.0")'
	want chromium 'shows previews' browser
	want exim4-daemon-heavy 'a real mail server, on GnuTLS' exim_here
	want opensmtpd 'a real mail server whose TLS fails' opensmtpd_here
}

warn() {
	printf '\n!!! %s\n\n' "$*" >&2
}

apt_install() {
	"${root[@]}" apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# unpack PACKAGE FOLDER USER...: its libraries are installed; of itself only what runs, and the users that it runs as.
unpack() (
	package=$1
	# shellcheck disable=SC2046 # several packages
	apt_install --no-upgrade $(apt-cache depends "$package" | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p') &&
		mkdir -p "build/$2" && cd "build/$2" && apt-get download -q "$package" && dpkg -x "$package"_*.deb . &&
		rm "$package"_*.deb || return
	for user in "${@:3}"; do
		id "$user" >/dev/null 2>&1 || "${root[@]}" useradd --system --user-group --home-dir /nonexistent --no-create-home \
			--shell /usr/sbin/nologin "$user" || return
	done
)

kind=${1:-}
case $kind in demo | test | bench | missing) ;; *) echo "usage: $0 demo|test|bench|missing" >&2 && exit 2 ;; esac
lua=$(basename "${LUA:-lua5.4}")

if [ "$kind" = missing ]; then
	look test
	[ ${#missing[@]} -eq 0 ] || printf '%s\n' "${missing[@]}"
	exit 0
fi
look "$kind"
if [ ${#missing[@]} -eq 0 ]; then
	echo "Everything 'make $kind' needs is installed."
	exit 0
fi
echo "Missing for 'make $kind':"
printf '  %s\n' "${missing[@]}"

root=()
if [ "$(id -u)" -ne 0 ]; then root=(sudo); fi
if ! command -v apt-get >/dev/null || { [ ${#root[@]} -gt 0 ] && ! command -v sudo >/dev/null; }; then
	echo "Please install them (the names are Debian's), then run 'make $kind' again." >&2
	exit 1
fi

echo "Installing them."
root+=(env DEBIAN_FRONTEND=noninteractive)
if printf '%s\n' "${missing[@]}" | grep -qv '^npm:'; then
	"${root[@]}" apt-get update -q || echo "apt-get update failed; going on with the lists that are here." >&2
	look "$kind" # what is packaged is known now
fi
apt=() npm='' exim='' opensmtpd=''
for item in "${missing[@]}"; do
	case $item in
	npm:*) npm=yes ;;
	exim4-*) exim=yes ;;
	opensmtpd*) opensmtpd=yes ;;
	*) apt+=("$item") ;;
	esac
done
packages=()
for item in ${apt[@]+"${apt[@]}"}; do
	IFS='|' read -r -a choices <<<"${item%% (*}"
	for package in "${choices[@]}"; do
		[ -n "$(apt-cache madison "$package" 2>/dev/null)" ] && packages+=("$package") && break
	done
done
if [[ " ${packages[*]:-} " == *" postfix "* ]]; then
	# the specs run a private instance; the machine's own is left unconfigured, so that it does not start
	echo 'postfix postfix/main_mailer_type select No configuration' | "${root[@]}" debconf-set-selections
fi
# likewise: none of these runs, neither now nor after the next start of the machine
policy=/usr/sbin/policy-rc.d
for service in nginx prosody minetest-server luanti-server; do
	[[ " ${packages[*]:-} " == *" $service"* ]] || continue
	if [ ! -e $policy ]; then
		trap '"${root[@]}" rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
		"${root[@]}" chmod 755 $policy
	fi
	"${root[@]}" mkdir -p /etc/systemd/system
	[ -e /etc/systemd/system/$service.service ] || "${root[@]}" ln -s /dev/null /etc/systemd/system/$service.service
done
# one that is broken must not keep the others away
[ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}" || for package in "${packages[@]}"; do
	apt_install "$package" || warn "$package CANNOT BE INSTALLED."
done
[ -z "$exim" ] || unpack exim4-daemon-heavy exim Debian-exim || warn "Exim CANNOT BE UNPACKED."
[ -z "$opensmtpd" ] || unpack opensmtpd opensmtpd opensmtpd opensmtpq || warn "OpenSMTPD CANNOT BE UNPACKED."
if [ -n "$npm" ]; then # all of them: npm takes away what it is not told to keep
	npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error --prefix build/npm \
		"${npm_packages[@]}" || warn "The packages of npm CANNOT BE INSTALLED."
fi

look "$kind"
if [ ${#needed[@]} -gt 0 ]; then
	echo "Nothing goes without these, which CANNOT BE HAD here (the names are Debian's):" >&2
	printf '  %s\n' "${needed[@]}" >&2
	exit 1
fi
if [ ${#missing[@]} -gt 0 ]; then
	warn "These CANNOT BE HAD here: what takes them IS SKIPPED."
	printf '  %s\n' "${missing[@]}" >&2
fi
