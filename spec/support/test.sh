#!/usr/bin/env bash
# test.sh: every check there is: builds and specs under each Lua, the static checks, the specs again under ASan and UBSan.
# The last line is "N passed, N failed", and how many were skipped: specs, and each component that this machine lacks. Under
# CI=true what is skipped counts as failed.
# Specs tagged #real (real servers, packaging) are slow and the same for every Lua, or go through the Luas themselves:
# they run once, under lua5.4. Those tagged #linear look at how much work Lua code is: they run under one Lua and LuaJIT.
# All is built first; then four jobs run at a time, as much of them is waiting, and each prints what it has to say at its
# end: what failed is named once more at the very end. `test.sh KIND [LUA]` is one job: specs, real, asan or lint. Jobs
# may run beside anything: no verdict hangs on how fast the machine is, and what listens has ports of its own (ports.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
# a make above lends us no jobs and must not hand on its variables
unset MAKEFLAGS MFLAGS MAKELEVEL LUA
export PATH=$PATH:/usr/games # where Debian has servers that root's does not name
busted=$(command -v busted)
mkdir -p build
log=$(mktemp build/test.XXXXXX)
jobs=${JOBS:-} # where each job, the leader of a session, writes its number
results=

# What a job has begun ends with it, and all jobs with the whole.
finish() {
	local process
	if [ -n "$results" ]; then
		while read -r process; do pkill -KILL -s "$process" || true; done <"$jobs"
		rm -f "$results" "$jobs"
	elif [ -n "$jobs" ]; then
		for process in $(pgrep -s $$); do [ "$process" = $$ ] || kill -KILL "$process" 2>/dev/null || true; done
	fi
	rm -f "$log"
}
trap finish EXIT
trap 'exit 1' INT TERM
if [ -n "$jobs" ]; then echo $$ >>"$jobs"; fi

# say TITLE PASSED FAILED SKIPPED: what came of something, with what it printed where not all is well
say() {
	(
		flock 9
		printf '== %s (%d s)\n' "$1" $SECONDS
		if [ $(($3 + $4)) -gt 0 ]; then sed -E '/^[-+*.]{20,}$/d' "$log"; fi
		printf '   %d passed, %d failed, %d skipped\n' "$2" "$3" "$4"
	) 9>build/test.lock
}

# check TITLE COMMAND...: one check, passed when the command succeeds
check() {
	local title=$1
	shift
	if "$@" >"$log" 2>&1 </dev/null; then
		say "$title" 1 0 0
	else
		say "$title" 0 1 0
		return 1
	fi
}

# tool COMMAND TITLE COMMAND...: a check by that tool, where there is one
tool() {
	if command -v "$1" >/dev/null; then check "${@:2}" || true; else say "$1 is not installed" 0 0 1; fi
}

# specs TITLE COMMAND...: one run of busted, counted by its closing line
specs() {
	local title=$1 status=0 good=0 bad=0 pending=0 line
	shift
	"$@" >"$log" 2>&1 </dev/null || status=$?
	line=$(grep -m 1 -E '^[0-9]+ success' "$log") || true # more may stand in what a spec tells
	if [[ $line =~ ^([0-9]+)\ success.*\ ([0-9]+)\ failure.*\ ([0-9]+)\ error.*\ ([0-9]+)\ pending ]]; then
		good=${BASH_REMATCH[1]} bad=$((BASH_REMATCH[2] + BASH_REMATCH[3])) pending=${BASH_REMATCH[4]}
	fi
	# a crash, a leak, or no specs at all
	if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$good" -eq 0 ]; }; then bad=1; fi
	say "$title" "$good" "$bad" "$pending"
}

# under LUA ARGUMENT...: the Lua with the modules built for it (SANITIZE=1: the sanitized ones)
under() {
	local lua=$1
	shift
	eval "$(make -s env "LUA=$lua")"
	timeout -k 10 3600 "$lua" "$@" # after an hour it hangs
}

sanitized() {
	local libraries
	libraries="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $PWD/build/asan/nodlclose.so"
	eval "$(SANITIZE=1 make -s env "LUA=$1")"
	timeout -k 10 3600 env "LD_PRELOAD=$libraries" ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 "$@"
}

case ${1:-} in
specs)
	case $2 in
	lua5.4 | luajit) excluded=real ;;
	*) excluded=real,linear ;;
	esac
	specs "specs under $2" under "$2" "$busted" --exclude-tags=$excluded
	exit
	;;
real)
	specs 'specs with real servers, hosts and packages' under lua5.4 "$busted" --tags=real
	exit
	;;
asan)
	# the JIT's machine code hides what it points at from the leak check
	options=()
	if [ "$2" = luajit ]; then options=(-joff); fi
	specs "specs under $2 with ASan and UBSan" sanitized "$2" "${options[@]}" "$busted" --exclude-tags=real,linear
	exit
	;;
lint)
	tool luacheck 'luacheck' make lint-luacheck
	check 'warnings are errors, gcc and clang' make lint-warnings || true
	tool clang-tidy 'clang-tidy' make lint-tidy
	tool clang-format 'clang-format' make lint-format
	check 'floors' make lint-floors || true
	check 'reference' make lint-reference || true
	exit
	;;
esac

everything() {
	local lua component list=() missing
	missing=$(bash spec/support/install.sh missing)
	while read -r component; do say "$component is MISSING: what takes it is skipped" 0 0 1; done < <(grep . <<<"$missing")
	for lua in lua5.1 lua5.2 lua5.3 lua5.4 lua5.5 luajit; do
		if ! command -v $lua >/dev/null || grep -q "lua.h of $lua)" <<<"$missing"; then continue; fi
		check "build for $lua" make -j2 LUA=$lua || continue
		if ! grep -q "under $lua)" <<<"$missing"; then list+=("specs $lua"); fi
	done
	# modules that stay loaded keep their names in a leak's stack
	mkdir -p build/asan
	echo 'int dlclose(void *handle); int dlclose(void *handle) { (void)handle; return 0; }' |
		gcc -shared -fPIC -o build/asan/nodlclose.so -xc -
	for lua in lua5.4 lua5.5 luajit; do
		[[ " ${list[*]} " == *"specs $lua"* ]] || continue
		if check "sanitized build for $lua" make -j2 SANITIZE=1 LUA=$lua; then list=("asan $lua" "${list[@]}"); fi
	done
	# the longest first
	printf '%s\n' real "${list[@]}" lint | JOBS=$jobs xargs -P4 -L1 setsid -w bash spec/support/test.sh ||
		say 'a job broke off' 0 1 0
}

jobs=$(mktemp build/jobs.XXXXXX)
results=$(mktemp build/results.XXXXXX)
everything | tee "$results"
read -r passed failed skipped < <(awk '/^   [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped/ {
	passed += $1; failed += $3; skipped += $5 } END { print passed + 0, failed + 0, skipped + 0 }' "$results")
if [ "${CI:-}" = true ] && [ "$skipped" -gt 0 ]; then
	echo "$skipped skipped: counted as failed, every component must be here under CI"
	failed=$((failed + skipped)) skipped=0
fi
awk '/^== / { job = $0 } /^(Failure|Error) -> / { getline name; print job ": " name }' "$results"
line="$passed passed, $failed failed"
if [ "$skipped" -gt 0 ]; then line+=", $skipped skipped"; fi
echo "$line"
[ "$failed" -eq 0 ]
