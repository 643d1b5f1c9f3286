#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An image of each format is made larger while it is served: who connects anew sees it and can use it, and a QEMU that runs
# gives its guest the larger disk, as reseal-vm-serve(1) says.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need cryptsetup qemu-io qemu-system-x86_64 nbdinfo python3
vm_service

disk() { printf 'nbd+unix:///%s?socket=%s' "$1" "$socket"; }
size_of() { nbdinfo --size "$(disk "$1")"; }

for format in luks1 luks2 xts vmdk-xts; do
    vm_make web 1
    if [ $format = vmdk-xts ]; then
        mv web/system.img web/system-flat.vmdk
        printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n\nRW 2048 FLAT "system-flat.vmdk" 0\n' >web/system.vmdk
        sed -i s/system.img/system.vmdk/ web/web.vmx
        vm encrypt web
    else
        vm encrypt --format $format web
    fi
    serve_vm web
    before=$(size_of scsi0:0)
    [ "$before" = $((1 << 20)) ] || fail "$format: $before bytes"
    if [ $format = vmdk-xts ]; then
        truncate -s +1M web/system-flat.vmdk
        sed -i 's/^RW 2048 /RW 4096 /' web/system.vmdk
    else
        truncate -s +1M web/system.img
    fi
    [ "$(size_of scsi0:0)" = $((2 << 20)) ] || fail "$format: $(size_of scsi0:0) bytes after it became larger: $(cat "$work/serve.err")"
    qemu-io -f raw -c 'write -P 0x5a 1M 1M' -c flush "$(disk scsi0:0)" >"$work/said" || fail "$format: $(cat "$work/said")"
    # What serves it next sees the same.
    serve_stop
    [ "$serve_code" = 0 ] || fail "$format: exit code $serve_code: $(cat "$work/serve.err")"
    serve_vm web
    qemu-io -r -f raw -c 'read -P 0x5a 1M 1M' "$(disk scsi0:0)" >"$work/said" || fail "$format: $(cat "$work/said")"
    if grep -q failed "$work/said"; then fail "$format: $(cat "$work/said")"; fi
    serve_stop
    rm -r web web.orig
done

# A LUKS2 segment of fixed size is as large as its header says, whatever its file is.
make_disk "$work/fixed.luks" 4M luks2 4096
cat >fix-size.py <<'END'
import hashlib, json, sys
path, size = sys.argv[1], sys.argv[2]
with open(path, "r+b") as f:
    length = int.from_bytes(f.read(16)[8:], "big")
    for start in (0, length):
        f.seek(start)
        header = bytearray(f.read(length))
        area = json.loads(header[4096:].split(b"\0", 1)[0])
        assert area["segments"]["0"]["size"] == "dynamic", area
        area["segments"]["0"]["size"] = size
        header[4096:] = json.dumps(area).encode().ljust(length - 4096, b"\0")
        header[448:512] = bytes(64)
        header[448:480] = hashlib.sha256(header).digest()
        f.seek(start)
        f.write(header)
END
python3 fix-size.py "$work/fixed.luks" $((3 << 20))
cryptsetup luksDump "$work/fixed.luks" | grep -q "length: $((3 << 20)) " || fail "not of fixed size: $(cryptsetup luksDump "$work/fixed.luks")"
serve_start --disk "$work/fixed.luks"
[ "$(nbdinfo --size "$uri")" = $((3 << 20)) ] || fail "fixed: $(nbdinfo --size "$uri") bytes"
truncate -s +8M "$work/fixed.luks"
[ "$(nbdinfo --size "$uri")" = $((3 << 20)) ] || fail "fixed: $(nbdinfo --size "$uri") bytes after its file became larger"
qemu-io -f raw -c 'write -P 0x5a 2M 1M' -c 'read -P 0x5a 2M 1M' "$uri" >"$work/said" || fail "fixed: $(cat "$work/said")"
if grep -q failed "$work/said"; then fail "fixed: $(cat "$work/said")"; fi
serve_stop
# What it promises must be there.
truncate -s $((32 * 1024 * 1024 + (2 << 20))) "$work/fixed.luks"
code=0
reseal vm serve --socket "$socket" --passphrase-file "$work/pass" --disk "$work/fixed.luks" >"$work/said" 2>&1 </dev/null || code=$?
[ $code = 5 ] && grep -q truncated "$work/said" || fail "a truncated disk of fixed size: exit code $code: $(cat "$work/said")"

# A hypervisor that runs.
make_disk "$work/disk.luks" 4M luks2 4096
serve_start --disk "$work/disk.luks"
cat >qmp.py <<'END'
import json, os, subprocess, sys
image, socket = sys.argv[1:]
server = {"type": "unix", "path": socket}
qemu = subprocess.Popen(["qemu-system-x86_64", "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-m", "64", "-qmp", "stdio",
                         "-blockdev", json.dumps({"driver": "nbd", "node-name": "d0", "server": server}),
                         "-device", "virtio-blk-pci,id=v0,drive=d0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
events = []

def ask(name, **arguments):
    qemu.stdin.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
    qemu.stdin.flush()
    for line in qemu.stdout:
        answer = json.loads(line)
        if "return" in answer or "error" in answer:
            return answer
        events.append(answer.get("event"))
    sys.exit("QEMU ended")

def must(name, **arguments):
    answer = ask(name, **arguments)
    if "error" in answer:
        sys.exit(f"{name}: {answer}")
    return answer["return"]

def size():
    return must("query-block")[0]["inserted"]["image"]["virtual-size"]

must("qmp_capabilities")
assert size() == 4 << 20, size()
os.truncate(image, os.path.getsize(image) + (4 << 20))
assert "error" in ask("block_resize", **{"node-name": "d0", "size": 8 << 20})  # the old connection knows the old size
must("blockdev-add", **{"driver": "nbd", "node-name": "d1", "server": server})
must("qom-set", path="/machine/peripheral/v0", property="drive", value="d1")
must("block_resize", **{"node-name": "d1", "size": 8 << 20})
must("blockdev-del", **{"node-name": "d0"})
assert size() == 8 << 20, size()
must("quit")
qemu.wait()
END
timeout -k 5 120 python3 qmp.py "$work/disk.luks" "$socket" >"$work/said" 2>&1 </dev/null || fail "QEMU: $(cat "$work/said")"
serve_stop
echo ok
