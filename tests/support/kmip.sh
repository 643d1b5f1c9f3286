# SPDX-License-Identifier: Apache-2.0
# KMIP servers for script tests, after service.sh:
#
#   kmip_port                # a free port
#   kmip_start PORT [CERT]   # a PyKMIP server with the keys in $pki/kmip.db; waits until it listens
#   kmip_kill PORT
#   kmip_silent              # $silent: the port of a server that accepts connections and says nothing
#   kmip_do USER CODE        # Python with a client `c` of PyKMIP's own, as that user
#   event ID [TEXT]          # waits for an event, fails when it does not come
#   keyd_pid
#   helpers+=(PID)           # a process that goes at exit
#
# $pki holds ca.crt, alice.crt, alice.key and so on (pykmip.sh).

if [ ! -x /usr/bin/pykmip-server ]; then
    echo "python3-pykmip is not installed"
    exit 77
fi
pki=$work/pki
mkdir -p "$pki"
declare -A kmip_pids=()
helpers=()

kmip_port() {
    /usr/bin/python3 "$RESEAL_SOURCE/tests/support/free-port.py"
}

kmip_start() {
    local port=$1 pid tries=0
    PYKMIP_CERT=${2:-} PYKMIP_PROGRAM=${3:-} setsid bash "$RESEAL_SOURCE/tests/support/pykmip.sh" "$pki" "$port" \
        </dev/null >"$pki/server-$port.out" 2>&1 &
    pid=$!
    kmip_pids[$port]=$pid
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$pid" 2>/dev/null || { cat "$pki/server-$port.out"; fail "the KMIP server ended"; }
        [ $((tries += 1)) -lt 1200 ] || fail "the KMIP server does not listen"
        sleep 0.05
    done
    last_port=$port
}

# With the processes that it started; it waits for none of them.
kmip_kill() {
    kill -KILL -- "-${kmip_pids[$1]}" 2>/dev/null || true
    wait "${kmip_pids[$1]}" 2>/dev/null || true
    unset "kmip_pids[$1]"
}

kmip_silent() {
    mkfifo "$work/silent"
    /usr/bin/python3 -c '
import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(512)
print(s.getsockname()[1], flush=True)
kept = []
while True: kept.append(s.accept())' </dev/null >"$work/silent" 2>/dev/null &
    helpers+=($!)
    read -r silent <"$work/silent"
}

kmip_do() {
    local code=0
    /usr/bin/python3 -W ignore -c "
from kmip import enums
from kmip.pie import client
c = client.ProxyKmipClient('127.0.0.1', $last_port, '$pki/$1.crt', '$pki/$1.key', '$pki/ca.crt')
c.open()
$2
c.close()" 2>"$work/kmip-client.err" || code=$?
    [ $code -eq 0 ] || cat "$work/kmip-client.err" >&2
    return $code
}

event() {
    local tries=0
    until grep -F "\"id\":\"$1\"" "$RESEAL_RUNTIME_DIR/state/events.jsonl" | grep -qF -- "${2:-}"; do
        [ $((tries += 1)) -lt 1200 ] || { cat "$RESEAL_RUNTIME_DIR/state/events.jsonl"; fail "no event $1 ${2:-}"; }
        sleep 0.05
    done
}

keyd_pid() {
    local pid
    for pid in $(cat "/proc/$service_pid/task/$service_pid/children"); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = reseal-keyd ] && echo "$pid"
    done
    return 0
}

. "$RESEAL_SOURCE/tests/support/refused.sh"

kmip_cleanup() {
    status=$?
    trap - EXIT
    set +e
    for helper in "${helpers[@]}"; do kill "$helper" 2>/dev/null; done
    for port in "${!kmip_pids[@]}"; do kmip_kill "$port"; done
    service_stop
    rm -rf "$work"
    exit $status
}
trap kmip_cleanup EXIT
