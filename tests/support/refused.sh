# SPDX-License-Identifier: Apache-2.0
# refused EXIT TEXT COMMAND...: it fails with that exit code and says that.
refused() {
    local want=$1 text=$2 code=0 out
    shift 2
    out=$("$@" 2>&1 </dev/null) || code=$?
    [ "$code" -eq "$want" ] || fail "$*: exit code $code, not $want: $out"
    case $out in *"$text"*) ;; *) fail "$*: does not say '$text': $out" ;; esac
}
