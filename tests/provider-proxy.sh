#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A standard provider reaches its key servers through an HTTP proxy (tinyproxy), TLS from end to end; what a proxy does wrong is one
# line, and no way around it is ever taken.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"
if ! command -v tinyproxy >/dev/null; then
    echo "tinyproxy is not installed"
    exit 77
fi

# proxy_start NAME LINE...: tinyproxy on port ${proxy[NAME]}, with these lines in its configuration
declare -A proxy=() proxy_pids=()
proxy_start() {
    local name=$1 tries=0 port
    port=$(kmip_port)
    shift
    printf '%s\n' "Port $port" "Listen 127.0.0.1" "Timeout 600" "Allow 127.0.0.1" "LogLevel Connect" "LogFile \"$work/$name.log\"" "$@" \
        >"$work/$name.conf"
    tinyproxy -d -c "$work/$name.conf" </dev/null >"$work/$name.out" 2>&1 &
    helpers+=($!)
    proxy_pids[$name]=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "${proxy_pids[$name]}" 2>/dev/null || fail "tinyproxy ended: $(cat "$work/$name.out")"
        [ $((tries += 1)) -lt 1200 ] || fail "tinyproxy does not listen"
        sleep 0.05
    done
    proxy[$name]=127.0.0.1:$port
}

port=$(kmip_port)
kmip_start "$port"
proxy_start open "ConnectPort $port" "ConnectPort 1"
service_start </dev/null >"$work/reseald.log" 2>&1
client=(--cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30)

# Also the certificate to be confirmed comes by that way.
connections() { grep -c "CONNECT 127.0.0.1:$port" "$work/open.log" || true; }
reseal provider add vault --server "127.0.0.1:$port" --yes --proxy "${proxy[open]}" "${client[@]}" >/dev/null 2>&1
[ "$(connections)" -eq 1 ] || fail "the certificate did not come through the proxy: $(cat "$work/open.log")"
reseal provider test vault | grep -q "^127.0.0.1:$port .* ok .*KMIP 1.1, TLSv1.2" || fail "its test through the proxy"
key=$(reseal key make)
reseal key forget >/dev/null
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "a key through the proxy"
[ "$(connections)" -eq 4 ] || fail "not all went through the proxy: $(cat "$work/open.log")"
reseal provider list | grep -q "through proxy ${proxy[open]}" || fail "the list does not say so"
reseal provider update vault --server "127.0.0.1:$port" --yes >/dev/null 2>&1
[ "$(connections)" -eq 5 ] || fail "an update asks by the way that the provider has"
reseal provider trust vault --yes >/dev/null 2>&1
[ "$(connections)" -eq 6 ] || fail "so does trust"
reseal provider list --json | grep -q "\"proxy\": \"${proxy[open]}\"" || fail "an update keeps the proxy"

# The proxy is in the middle of nothing: another CA is noticed behind it.
reseal provider add other-ca --server "127.0.0.1:$port" --ca "$pki/other-ca.crt" --proxy "${proxy[open]}" "${client[@]}" >/dev/null
refused 1 'is not from a CA that is trusted' reseal provider test other-ca

# ---- refusals
refused_by() { # refused_by PROXY TEXT
    reseal provider update vault --proxy "$1" >/dev/null
    reseal key forget >/dev/null
    refused 1 "$2" reseal provider test vault
    refused 4 "KeyStateClusterUnreachable: proxy" reseal key status "$key"
}
proxy_start closed "ConnectPort 563"
proxy_start locked "ConnectPort $port" "BasicAuth someone something"
refused_by "${proxy[closed]}" "does not let us through to key server 127.0.0.1 port $port: 403: have CONNECT to that host and port allowed there"
refused_by "${proxy[locked]}" '407: it wants a user and a password, which is not supported'
refused_by no-such-proxy.invalid:3128 'proxy no-such-proxy.invalid:'
kill "${proxy_pids[closed]}"
wait "${proxy_pids[closed]}" 2>/dev/null || true
refused_by "${proxy[closed]}" 'Connection refused: check that it runs and the port is right'
event com.vmware.vc.kms.crypto.Unreachable 'Connection refused'
reseal provider update vault --proxy "${proxy[open]}" --server 127.0.0.1:1 --ca "$pki/ca.crt" >/dev/null
refused 1 'does not let us through to key server 127.0.0.1 port 1: 50' reseal provider test vault
reseal provider update vault --server "127.0.0.1:$port" --ca "$pki/ca.crt" >/dev/null

# Answers that no proxy gives.
cat >"$work/strange.py" <<'P'
import socket, sys, threading
kinds = {
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\0" * 64,
    "endless": b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"a" * 100000,
    "early": b"HTTP/1.1 200 OK\r\n\r\nbytes that nobody asked for",
    "page": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "mute": b"",
    "silent": None,
}
kept = []
def serve(s, answer):
    while True:
        c = s.accept()[0]
        got = b""
        while b"\r\n\r\n" not in got:
            more = c.recv(4096)
            if not more: break
            got += more
        if not got.startswith(b"CONNECT 127.0.0.1:"): answer = b""
        kept.append(c)
        try:
            if answer is not None: c.sendall(answer); c.shutdown(socket.SHUT_WR)
        except OSError: pass
for name, answer in kinds.items():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(16)
    print(name, s.getsockname()[1])
    threading.Thread(target=serve, args=(s, answer)).start()
print("ready", 0, flush=True)
P
mkfifo "$work/strange"
/usr/bin/python3 "$work/strange.py" >"$work/strange" </dev/null 2>/dev/null &
helpers+=($!)
while read -r name number; do
    [ "$name" != ready ] || break
    proxy[$name]=127.0.0.1:$number
done <"$work/strange"
for name in garbage zeros endless early; do
    refused_by "${proxy[$name]}" 'what it answers is not HTTP, or too long: check its address'
done
refused_by "${proxy[page]}" '404: it is no proxy for CONNECT: check its address'
refused_by "${proxy[mute]}" 'closed the connection without an answer'
reseal provider update vault --timeout 1 >/dev/null
refused_by "${proxy[silent]}" 'does not answer in time'
event com.vmware.vc.kms.crypto.Unreachable 'not HTTP'
reseal provider update vault --timeout 30 >/dev/null

# ---- arguments
refused 1 "proxy: '127.0.0.1': a port is a number" reseal provider update vault --proxy 127.0.0.1
refused 1 "proxy: 'a b:1' is no name or address" reseal provider update vault --proxy 'a b:1'
refused 2 'a native provider has no server' reseal provider add x --native --proxy 127.0.0.1:1

# Straight again.
kill "${proxy_pids[open]}"
wait "${proxy_pids[open]}" 2>/dev/null || true
reseal provider update vault --proxy none >/dev/null
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "without a proxy"
reseal provider list | grep -q '^vault .*proxy' && fail "the proxy is still there"
exit 0
