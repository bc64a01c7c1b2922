#!/bin/sh
# A session with momo: three daemons on loopback, an upload in each mode, one by netcat, a daemon killed, everything read back.
# `make demo` runs it on the release binary. It works in a directory of its own and stops everything it started.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
momo=${MOMO:-$here/target/release/momo}
case $momo in /*) ;; *) momo=$PWD/$momo ;; esac
[ -x "$momo" ] || { echo "no binary at $momo: run make build" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/momo-demo.XXXXXX")
pids=
stop() {
	status=$?
	trap - EXIT INT TERM
	for pid in $pids; do kill "$pid" 2>/dev/null || true; done
	for pid in $pids; do wait "$pid" 2>/dev/null || true; done
	if [ "$status" -ne 0 ]; then
		echo "the demo failed ($status); the ends of the logs:" >&2
		for log in "$work"/daemon-*.log; do
			[ -e "$log" ] && { echo "--- ${log##*/}"; tail -n 20 "$log"; } >&2
		done
	fi
	rm -rf "$work"
	exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '$ momo %s\n' "$*"; "$momo" "$@"; }

# The daemons' data directories in the file are relative: they land in the demo's own directory.
mkdir "$work/conf"
cp "$here/conf/local.conf" "$work/conf/local.conf"
cd "$work"
MOMO_CONF=$work/conf/local.conf
export MOMO_CONF

address() { # daemon, key
	awk -F = -v section="[daemon.$1]" -v key="$2" '
		/^\[/ { inside = ($0 == section) }
		inside { name = $1; gsub(/[ \t]/, "", name); if (name == key) { value = $2; gsub(/[ \t]/, "", value); print value; exit } }
	' "$MOMO_CONF"
}
host0=$(address 0 host)
host1=$(address 1 host)
host2=$(address 2 host)

start() { # daemon
	"$momo" server --id "$1" >>"daemon-$1.log" 2>&1 &
	eval "pid$1=$!"
	pids="$pids $!"
}

killed() { # pid: gone, and no longer ours to stop
	kept=
	for pid in $pids; do [ "$pid" = "$1" ] || kept="$kept $pid"; done
	pids=$kept
}

# Polls instead of sleeping a guessed time.
eventually() { # what, command...
	what=$1
	shift
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 300 ] || { echo "never: $what" >&2; return 1; }
		sleep 0.1
	done
}

same() { cmp "$1" "$2" && echo "$2 is the same, byte for byte"; }

ready() { # daemon address
	"$momo" status --json --server "$1" 2>/dev/null | grep -q '"state": *"ready"'
}

say "Three daemons on loopback, from conf/local.conf"
for id in 0 1 2; do start "$id"; done
for host in "$host0" "$host1" "$host2"; do eventually "$host is ready" ready "$host"; done
run status

say "A real file in each of the four modes, with the Momo client"
cp "$momo" momo.bin
for mode in 0 1 2 3; do
	cp momo.bin "mode-$mode.bin"
	run mode "$mode" >/dev/null
	run -imp client -file "mode-$mode.bin"
	run stat "mode-$mode.bin"
	md5sum "mode-$mode.bin" data/dir*/"mode-$mode.bin" 2>/dev/null || true
done

say "One with netcat"
run mode 2 >/dev/null
if command -v nc >/dev/null 2>&1; then
	echo '$ printf "FILE PUT 14 -- by-nc.txt\nhello, netcat\n" | nc -N '"${host1%:*} ${host1##*:}"
	printf 'FILE PUT 14 -- by-nc.txt\nhello, netcat\n' | nc -N -w 10 "${host1%:*}" "${host1##*:}"
	echo '$ echo "FILE PULL by-nc.txt" | nc -N '"${host2%:*} ${host2##*:}"
	echo 'FILE PULL by-nc.txt' | nc -N -w 10 "${host2%:*}" "${host2##*:}"
else
	echo "(nc is not installed)"
fi

say "What is there"
run ls
run status

say "Read back from another node"
run get mode-2.bin -o back.bin --server "$host2"
same momo.bin back.bin

say "Daemon 0 is killed (kill -9), and everything is read and written all the same"
kill -9 "$pid0"
wait "$pid0" 2>/dev/null || true
killed "$pid0"
eventually "a leader without daemon 0" ready "$host1"
for mode in 1 2 3; do
	rm -f back.bin
	run get "mode-$mode.bin" -o back.bin --server "$host1"
	same momo.bin back.bin
done
echo "written while daemon 0 is dead" >later.txt
run put later.txt

say "Daemon 0 is back and is brought up to date"
start 0
eventually "daemon 0 is ready" ready "$host0"
eventually "daemon 0 has later.txt" cmp later.txt data/dir1/later.txt
run status

say "Done; everything that was started is stopped"
