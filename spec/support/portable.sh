#!/usr/bin/env bash
# portable.sh [SUITE COMMAND...]: `make test` as a newcomer would run it, as root in a minimal Debian of each of SUITES. Each
# is made once, by debootstrap, in CHROOTS/SUITE, with nothing more than make and git; what `make test` installs there stays
# for the next run, and the last commit is cloned afresh. With a SUITE only COMMAND runs there, in the clone that there is.
# MIRROR says where the packages come from. All runs in namespaces of its own, so that nothing stays mounted or goes on
# running, however this ends. The specs' ports are the machine's: others that run meanwhile are given different ones.
set -euo pipefail
suites=${SUITES:-bookworm trixie sid}
cd "$(dirname "$0")/../.."
chroots=$(realpath -m "${CHROOTS:-build/portable}")

if [ "$(id -u)" -ne 0 ]; then
	echo "debootstrap and chroot are root's: asking sudo."
	exec sudo env "SUITES=$suites" "MIRROR=${MIRROR:-}" "CHROOTS=$chroots" bash "$PWD/spec/support/portable.sh" "$@"
fi
if [ -z "${PORTABLE:-}" ]; then
	if ! command -v debootstrap >/dev/null; then
		echo "Installing debootstrap, which makes the minimal systems."
		command -v apt-get >/dev/null || { echo "There is no apt-get here: please install it yourself." >&2 && exit 1; }
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap
	fi
	PORTABLE=yes unshare --mount --pid --fork --kill-child bash spec/support/portable.sh "$@" </dev/null &
	trap 'kill -KILL $!; exit 1' INT TERM
	wait $!
	exit
fi

# loud WORDS...
loud() {
	printf '\n!!! %s\n\n' "$*" >&2
}

# made SUITE: the minimal system is there, or is made
made() {
	local root=$chroots/$1
	[ ! -e "$root" ] || return 0
	echo "== $1: debootstrap into $root"
	rm -rf --one-file-system "$root.part"
	mkdir -p "$chroots"
	debootstrap --variant=minbase --include=make,git "$1" "$root.part" ${MIRROR:+"$MIRROR"} || return 1
	# what an installed system has: its names, and the authorities that this machine was told to trust
	cp /etc/hosts "$root.part/etc/hosts"
	mkdir -p "$root.part/usr/local/share/ca-certificates"
	find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root.part/usr/local/share/ca-certificates" \;
	echo force-unsafe-io >"$root.part/etc/dpkg/dpkg.cfg.d/unsafe-io" # faster, and it can be made again
	mv "$root.part" "$root"
}

mounted() {
	local root=$chroots/$1 ports=/tmp/smtp-ports.0
	mount --bind "$root" "$root" # a root of its own: unshare, which some specs use, wants one
	mount -t proc proc "$root/proc"
	mount -t sysfs -o ro sysfs "$root/sys"
	mkdir -p "$root/dev/pts" "$root/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
	mount -t tmpfs tmpfs "$root/dev/shm"
	touch $ports "$root$ports"
	mount --bind $ports "$root$ports"
	cp /etc/resolv.conf "$root/etc/resolv.conf"
}

# inside SUITE COMMAND...
inside() {
	local root=$chroots/$1
	shift
	env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM="${TERM:-dumb}" \
		chroot "$root" "$@"
}

if [ $# -gt 0 ]; then
	made "$1"
	mounted "$1"
	[ -e "$chroots/$1/root/smtp" ] || git clone -q . "$chroots/$1/root/smtp"
	# shellcheck disable=SC2016 # for the shell inside
	inside "$1" sh -c 'cd /root/smtp && exec "$@"' sh "${@:2}"
	exit
fi

counts=() status=0
for suite in $suites; do
	if ! made "$suite"; then
		loud "$suite: its packages CANNOT BE REACHED (MIRROR=${MIRROR:-that of debootstrap}). NOTHING WAS TESTED THERE."
		counts+=("no packages: not tested") status=1
		continue
	fi
	mounted "$suite"
	rm -rf "$chroots/$suite/root/smtp"
	git clone -q . "$chroots/$suite/root/smtp"
	echo "== $suite: make test"
	inside "$suite" dpkg --configure -a # a run that was broken off
	inside "$suite" make -C /root/smtp test 2>&1 | tee "$chroots/$suite.log" || status=1
	counts+=("$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$chroots/$suite.log" || echo "ended before any test: see $chroots/$suite.log")")
done
echo
for suite in $suites; do
	printf '%-10s %s\n' "$suite" "${counts[0]}"
	counts=("${counts[@]:1}")
done
exit $status
