#!/usr/bin/env bash
# install.sh demo|test: installs what `make demo` or `make test` needs and this machine lacks, with apt-get.
# Whatever is there already is left alone. Without apt-get it only says what is missing, by its Debian names.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

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

# want PACKAGE PURPOSE PROBE...: the package is missing where the probe fails; PACKAGE may name a second choice, "a|b"
missing=()
want() {
	local package=$1 purpose=$2
	shift 2
	"$@" >/dev/null 2>&1 || missing+=("$package ($purpose)")
}

want_lua() {
	local package=$1 headers=lib$1-dev
	case $1 in
	lua5.1) headers=liblua5.1-0-dev ;;
	luajit) package='luajit2|luajit' headers='libluajit2-5.1-dev|libluajit-5.1-dev' ;;
	esac
	want "$package" "the interpreter $1" command -v "$1"
	want "$headers" "lua.h of $1" lua_header "$1"
}

look() {
	missing=()
	want gcc 'C compiler' command -v cc
	want libc6-dev 'C headers' header stdio.h
	want make 'make' command -v make
	want pkg-config 'finds the headers' command -v pkg-config
	want libssl-dev 'OpenSSL headers' header openssl/ssl.h
	want ca-certificates 'system trust store' trust_store
	if [ "$1" = demo ]; then
		want_lua "$(basename "${LUA:-lua5.4}")"
		return
	fi
	for lua in lua5.1 lua5.2 lua5.3 lua5.4 luajit; do want_lua "$lua"; done
	want lua-busted 'runs the specs' command -v busted
	want lua-check 'checks the Lua code' command -v luacheck
	want luarocks 'packaging specs' command -v luarocks
	want zip 'packs rocks' command -v zip
	want unzip 'unpacks rocks' command -v unzip
	want clang-tidy 'checks the C code' command -v clang-tidy
	want postfix 'a real mail server' command -v postfix
	want dovecot-core 'authentication for Postfix' command -v dovecot
	want swaks 'an independent client' command -v swaks
	want libnet-ssleay-perl 'TLS for swaks' perl -MNet::SSLeay -e1
	want curl 'an independent client' command -v curl
	want openssl 'makes test certificates' command -v openssl
	want python3 'an independent client and server' command -v python3
}

kind=${1:-}
case $kind in demo | test) ;; *) echo "usage: $0 demo|test" >&2 && exit 2 ;; esac

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

echo "Installing them with apt-get."
root+=(env DEBIAN_FRONTEND=noninteractive)
"${root[@]}" apt-get update -q || echo "apt-get update failed; going on with the lists that are here." >&2
packages=()
for item in "${missing[@]}"; do
	IFS='|' read -r -a choices <<<"${item%% (*}"
	for package in "${choices[@]}"; do
		[ -n "$(apt-cache madison "$package" 2>/dev/null)" ] && packages+=("$package") && break
	done
done
if [[ " ${packages[*]:-} " == *" postfix "* ]]; then
	# the specs run a private instance; the machine's own is left unconfigured, so that it does not start
	echo 'postfix postfix/main_mailer_type select No configuration' | "${root[@]}" debconf-set-selections
fi
"${root[@]}" apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "${packages[@]}"

look "$kind"
if [ ${#missing[@]} -gt 0 ]; then
	echo "Still missing:" >&2
	printf '  %s\n' "${missing[@]}" >&2
	exit 1
fi
