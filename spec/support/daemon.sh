#!/usr/bin/env bash
# daemon.sh: what those scripts have in common that start and stop a real server for the specs, each on free ports of 127.0.0.1
# and under a directory of its own: NAME.sh start DIR [ARGUMENT] | stop DIR. start prints KEY=VALUE lines once every port
# answers; what it cannot do it says on stderr, with status 1. A script sources this, defines start and stop, and ends with
# `control "$@"`.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
support=$(cd "$(dirname "$0")" && pwd)

die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# Waits up to a minute for a command to succeed.
wait_for() {
	for _ in $(seq 1200); do
		"$@" 2>/dev/null && return
		sleep 0.05
	done
	return 1
}

greets() { head -c 4 <"/dev/tcp/127.0.0.1/$1" | grep -q 220; }

need_root() { [ "$(id -u)" -eq 0 ] || die 'it must be started as root'; }

# Runs a program that stays in front, by the file pid, as the leader of a group.
lead() {
	setsid "$@" </dev/null &
	echo $! >pid
}

# Makes the directory and goes there; it has a CA and a certificate in pki, for these further names.
enter() {
	umask 022
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
	cd "$dir"
	chmod 755 .
	bash "$support/pki.sh" "$dir/pki" "${@:2}" >openssl.log 2>&1 || die "openssl failed: $(cat openssl.log)"
}

# No process of the group is alive; one that only waits to be reaped is not.
gone() {
	awk -v group="$1" '{ sub(/.*\) /, "") } $3 == group && $1 != "Z" { exit 1 }' < <(cat /proc/[0-9]*/stat)
}

# Ends processes that lead a group each; what is left of that after a while is killed.
end() {
	local pid
	for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
	for pid in "$@"; do wait_for gone "$pid" || kill -KILL -- "-$pid" 2>/dev/null || true; done
}

control() {
	[ -n "${2:-}" ] || die 'usage: start DIR [ARGUMENT] | stop DIR'
	case $1 in
	start) start "${@:2}" ;;
	stop) stop "$2" ;;
	*) die 'usage: start DIR [ARGUMENT] | stop DIR' ;;
	esac
}
