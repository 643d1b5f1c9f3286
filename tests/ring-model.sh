# SPDX-License-Identifier: Apache-2.0
# The model of publish, sleep and wake: verified as it is; with a fence or the second look left out, the lost
# wake-up is found, so that the model is known to see what it is there for.
set -eu
model=$RESEAL_SOURCE/docs/model/ring.pml
command -v spin >/dev/null || { echo "spin is not installed"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# verify NAME [-DMACRO...]: leaves the verifier's report in NAME.
verify() {
    local report=$1
    shift
    rm -f pan*
    spin -a "$@" "$model" >spin.log 2>&1 || { cat spin.log; exit 1; }
    cc -O1 -DSAFETY -o pan pan.c 2>cc.log || { cat cc.log; exit 1; }
    ./pan -m1000000 >"$report" 2>&1 || { cat "$report"; exit 1; }
    # A search that was cut short proves nothing.
    if grep -q 'max search depth too small' "$report"; then
        echo "$report: the search was cut short"
        exit 1
    fi
}

verify good
grep -q 'errors: 0' good || { cat good; echo "the model has an error"; exit 1; }
# Code that was never reached would be proved of nothing; only the endless flushers have no end.
if sed -n '/unreached in proctype \(client\|worker\)/,/^$/p' good | grep -E 'ring.pml:[0-9]+' | grep -v -- '-end-'; then
    echo "the model does not reach the lines above"
    exit 1
fi

for broken in NO_FENCE NO_FENCE_PRODUCER NO_FENCE_CONSUMER NO_RECHECK; do
    verify $broken -D$broken
    grep -q 'invalid end state' $broken && ! grep -q 'errors: 0' $broken ||
        { cat $broken; echo "$broken: the lost wake-up was not found"; exit 1; }
done
echo "verified: $(grep -o '[0-9]* states, stored' good)"
