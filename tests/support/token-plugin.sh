# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Stock cryptsetup with the token plug-in of this build. Source service.sh first.
#
#   token_plugin_needs        # ends the test with 77 where the plug-in cannot be used
#   with_plugin COMMAND...    # in a mount namespace where the plug-in lies in the folder of this machine's cryptsetup

token_plugin_needs() {
    local plugin
    command -v cryptsetup >/dev/null || { echo "cryptsetup is missing: install cryptsetup-bin"; exit 77; }
    plugin="$(realpath "$RESEAL_BUILD")/lib/cryptsetup/libcryptsetup-token-reseal.so"
    [ -e "$plugin" ] || fail "$plugin was not built"
    if nm -D --undefined-only "$plugin" | grep -q '__asan\|__ubsan\|__tsan'; then
        echo "a plug-in with a sanitizer cannot be loaded by cryptsetup"
        exit 77
    fi
    token_plugin_folder=$(cryptsetup --help | sed -n 's/^LUKS2 external token plugin path: \(.*\)\.$/\1/p')
    [ -n "$token_plugin_folder" ] || { echo "this cryptsetup loads no token plug-ins"; exit 77; }
    mkdir "$work/plugins"
    cp "$plugin" "$work/plugins"
    unshare -m true 2>/dev/null || { echo "mount namespaces need root here"; exit 77; }
    [ -d "$token_plugin_folder" ] || { echo "$token_plugin_folder is not there to be mounted over"; exit 77; }
}

with_plugin() {
    unshare -m bash -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' - "$work/plugins" "$token_plugin_folder" "$@"
}
