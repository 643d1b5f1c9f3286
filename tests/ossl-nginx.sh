#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A real nginx with several workers serves and takes files over HTTPS with the provider loaded, read by curl with
# OpenSSL's own ciphers, and the reverse; and goes on through reloads under load.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/provider.sh"
command -v nginx >/dev/null || PATH=$PATH:/usr/sbin
for program in nginx curl; do
    command -v $program >/dev/null || fail "$program is missing: tests/run installs it"
done
curl -V | grep -q OpenSSL/3 || fail "this curl does not use OpenSSL 3: $(curl -V | head -n 1)"

openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost 2>/dev/null
# As root, workers give their rights up to a user who must get to the files.
mkdir -m 755 files
mkdir -m 777 put
chmod 711 "$work"
sizes='0 1 16383 16384 16385 16386 1048576 52428800'
for size in $sizes; do head -c "$size" /dev/urandom >"files/$size"; done
large=files/52428800

# configuration PORT WORKERS
configuration() {
    cat >nginx.conf <<CONF
daemon off;
pid $work/nginx.pid;
worker_processes $2;
worker_shutdown_timeout 300s;
error_log $work/error.log notice;
events { worker_connections 64; }
http {
    access_log off;
    client_max_body_size 100m;
    send_timeout 300s;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    sendfile on;
    server {
        listen 127.0.0.1:$1 ssl;
        ssl_certificate $work/cert.pem;
        ssl_certificate_key $work/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE+AESGCM;
        ssl_session_cache shared:sessions:1m;
        add_header Cipher \$ssl_cipher always;
        add_header Worker \$pid always;
        root $work/files;
        location /put/ { alias $work/put/; dav_methods PUT; }
    }
}
CONF
}

workers_started() { [ "$(grep -c 'start worker process [0-9]' error.log)" -ge "$1" ]; }
other_port() { grep -q 'bind().*Address already in use' error.log; }

# start_nginx SIDE WORKERS: on a port that nobody else has, in $port
start_nginx() {
    rm -f ./*.used
    while :; do
        port=$((10000 + RANDOM % 20000))
        configuration $port "$2"
        : >error.log
        background nginx with "$1" nginx nginx -e "$work/error.log" -c "$work/nginx.conf"
        until workers_started "$2" || other_port; do
            kill -0 "${pids[nginx]}" 2>/dev/null || fail "nginx ended: $(cat error.log)"
            sleep 0.02
        done
        other_port || return 0
        wait "${pids[nginx]}" || true
    done
}

# All workers end their work; what they did is in the log then.
stop_nginx() {
    kill -QUIT "${pids[nginx]}"
    wait "${pids[nginx]}" || fail "nginx: $(tail error.log)"
    unset 'pids[nginx]'
    ! grep -E '\[(alert|crit|emerg)\]|exited on signal|SSL_' error.log || fail "nginx complained"
    no_reports
}

# get SIDE CURL-OPTIONS...
get() {
    local side=$1
    shift
    with "$side" curl curl -sS --fail --noproxy '*' --cacert cert.pem --resolve "localhost:$port:127.0.0.1" "$@"
}

# files SIDE CURL-OPTIONS...: every size over one connection, unless nginx closes it
files() {
    local side=$1 size urls=()
    shift
    rm -rf got
    mkdir got
    for size in $sizes; do urls+=(-o "got/$size" "https://localhost:$port/$size"); done
    get "$side" -w '%{num_connects}\n' "$@" "${urls[@]}" >connects
    for size in $sizes; do cmp "files/$size" "got/$size" || fail "$size bytes came different"; done
}

# suites SERVER-SIDE CLIENT-SIDE
suites() {
    local suite options cipher
    for suite in ECDHE-RSA-AES256-GCM-SHA384 ECDHE-RSA-AES128-GCM-SHA256 TLS_AES_256_GCM_SHA384 TLS_AES_128_GCM_SHA256; do
        case $suite in
        TLS_*) options=(--tlsv1.3 --tls13-ciphers "$suite") ;;
        *) options=(--tlsv1.2 --tls-max 1.2 --ciphers "$suite") ;;
        esac
        [[ $suite =~ AES_?256 ]] && cipher=AES-256-GCM || cipher=AES-128-GCM
        start_nginx "$1" 2
        module_mapped "$1"
        files "$2" "${options[@]}"
        [ "$(awk '{ n += $1 } END { print n }' connects)" = 1 ] || fail "not one connection: $(cat connects)"
        [ "$(get "$2" "${options[@]}" -o small -w '%header{cipher}' "https://localhost:$port/1")" = $suite ] ||
            fail "not $suite"
        get "$2" "${options[@]}" -T $large "https://localhost:$port/put/$suite"
        cmp $large put/$suite || fail "what was uploaded is something else"
        stop_nginx
        used_only nginx "$1" $cipher 104857600
        used_only curl "$2" $cipher 104857600
    done
}

module_mapped() {
    local pid mapped
    sed -n 's/.*start worker process \([0-9]*\)$/\1/p' error.log | while read -r pid; do
        grep -qF "$module" "/proc/$pid/maps" && mapped=reseal || mapped=default
        [ $mapped = "$1" ] || fail "worker $pid has $mapped, not $1"
    done
}

# Downloads never stop while nginx starts new workers three times: those that it began before go on in old ones.
reloads() {
    local i before
    RESEAL_OSSL_ENGINE=auto start_nginx reseal 3
    for i in 1 2 3; do
        before=$(grep -c 'start worker process [0-9]' error.log)
        rm -f slow
        touch hold
        background slow held_download
        until_true slow test -s slow
        background fast many_downloads
        kill -HUP "${pids[nginx]}"
        until_true nginx workers_started $((before + 3))
        [ "$(stat -c %s slow)" -le 1000000 ] || fail "the download had ended before the reload"
        files default --tlsv1.3
        rm hold
        touch enough
        wait "${pids[fast]}" || fail "a download failed during reload $i"
        wait "${pids[slow]}" || fail "the download over reload $i failed"
        cmp $large slow || fail "the download over reload $i is different"
        rm enough
    done
    unset 'pids[fast]' 'pids[slow]'
    stop_nginx
    used_only nginx reseal AES-256-GCM 300000000
    [ "$(grep -c 'start worker process [0-9]' error.log)" = 12 ] || fail "not twelve workers"
}
# Its beginning, and the rest when "hold" is gone: it is sure to be under way when the workers change.
held_download() {
    get default "https://localhost:$port/52428800" | {
        head -c 1000000
        while [ -e hold ]; do sleep 0.02; done
        cat
    } >slow
}
many_downloads() {
    local version
    while [ ! -e enough ]; do
        for version in 1.2 1.3; do
            get default --tlsv$version --tls-max $version "https://localhost:$port/1048576" | cmp - files/1048576 || return 1
        done
    done
}

suites reseal default
# Debian's curl waits for ever when it starts below ASAN's library, with or without a provider.
[ -n "$sanitizer" ] || suites default reseal
reloads
