#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts somewhere works from there: the service starts, the command reaches it, a program builds
# with pkg-config and runs, every command has its page, the completion completes.
set -u
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
pid=
trap '[ -z "$pid" ] || { kill $pid; wait $pid; }; rm -rf "$work"' EXIT
grep -q 'RESEAL_SANITIZE:STRING=..*' "$RESEAL_BUILD/CMakeCache.txt" && { echo "an instrumented build is not for installing"; exit 77; }

prefix=$work/prefix
cmake --install "$RESEAL_BUILD" --prefix "$prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
mkfifo "$work/ready"
"$prefix/bin/reseald" --runtime-dir "$work/run" --ready-fd 9 9>"$work/ready" &
pid=$!
read -r line <"$work/ready" || fail "the installed service does not start"
[ "$line" = ready ] || fail "the service says '$line'"
"$prefix/bin/reseal" status --runtime-dir "$work/run" | grep -q '^reseald ' || fail "the installed command does not reach it"

pc=$(find "$prefix" -name reseal.pc)
sed -i "s|^prefix=.*|prefix=$prefix|" "$pc"
export PKG_CONFIG_PATH=${pc%/*}
# shellcheck disable=SC2046
cc -o "$work/simple" "$RESEAL_SOURCE/offload/client/examples/simple.c" $(pkg-config --cflags --libs reseal) \
    -Wl,-rpath,"$(pkg-config --variable=libdir reseal)" || fail "the example does not build with pkg-config"
RESEAL_RUNTIME_DIR=$work/run "$work/simple" >/dev/null || fail "the example does not run"

for c in $("$prefix/bin/reseal" help | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p'); do
    [ "$c" != help ] || continue
    compgen -G "$prefix/share/man/man[15]/reseal-$c.[15]" >/dev/null || fail "reseal $c has no manual page"
done
[ -f "$prefix/share/man/man8/reseald.8" ] || fail "reseald has no manual page"
[ -f "$prefix/share/man/man7/reseal-provider.7" ] || fail "the provider has no manual page"

PATH=$prefix/bin:$PATH
# shellcheck source=offload/cli/completion.bash
. "$prefix/share/bash-completion/completions/reseal"
complete_words() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _reseal
    printf '%s ' "${COMPREPLY[@]}"
}
[ "$(complete_words reseal doc)" = 'doctor ' ] || fail "completion of a command"
[ "$(complete_words reseal bench hotpath --working)" = '--working-set ' ] || fail "completion of an option"
[ "$(complete_words reseal bench hotpath --from x)" = 'xts ' ] || fail "completion of a value"
[ "$(complete_words reseal openssl ch)" = 'check ' ] || fail "completion of what to do"

# Storage policies are found where they were installed, beside those of /etc.
policies=$prefix/share/reseal/storage-policies
[ -n "$(find "$policies" -name '*.json')" ] || fail "no sample storage policy is installed"
printf '{"name": "Clear", "capabilities": []}' >"$policies/clear.json"
"$prefix/bin/reseal" vm create -q --runtime-dir "$work/none" --policy Clear --disk 1M "$work/clear" || fail "an installed policy is not found"
[ -f "$work/clear/clear.img" ] || fail "no VM by an installed policy"
"$prefix/bin/reseal" vm create --policy Gold --disk 1M "$work/gold" 2>"$work/log" && fail "a policy that is not there makes a VM"
grep -q "in /etc/reseal/storage-policies and .*share/reseal/storage-policies there is .*\"VM Encryption Policy\"" "$work/log" || fail "not said where: $(cat "$work/log")"

for f in reseal.so openssl-reseal.cnf; do
    [ -n "$(find "$prefix" -name $f)" ] || fail "$f is not installed"
done
exit $bad
