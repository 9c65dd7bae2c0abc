# What the demo's steps are told with. Sourced by demo/run.

hour_seconds=3
bold='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi

say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '   $ %s\n' "$*"; }
quote() { cut -c1-"${1:-150}" | sed 's/^/   | /'; }

# Starts a process in the background: its id is in $pid.
start() {
    "$@" &
    pid=$!
}

# Nothing here is worth a farewell: a sidecar that is asked to end would first deliver what it has.
clean_up() {
    local running
    running=$(jobs -p)
    for pid in $running; do kill -KILL "$pid" 2>/dev/null || true; done
    for pid in $running; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}

# Asks the simulator's administration: METHOD PATH [BODY].
admin() {
    python3 - "$1" "$aws/simulator/$2" "${3-}" <<'PYTHON'
import sys, urllib.request
method, url, body = sys.argv[1:]
request = urllib.request.Request(url, data=body.encode() or None, method=method)
print(urllib.request.urlopen(request, timeout=10).read().decode().strip())
PYTHON
}

# Waits, up to half a minute, for a condition.
until_true() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    { echo "gave up waiting for: $*"; tail -n 20 "$work"/*.log; } >&2
    return 1
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
has_state() { grep -q "\"state\": \"$1\"" "$TOLLGATE_STATUS_FILE"; }
