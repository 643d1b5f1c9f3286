#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Opens a .vmx that a pass phrase locks, as other programs would: open-vmx.py FILE.vmx PHRASE-FILE, lines on stdout.

Written from the public description of the format alone; nothing of the project is in it. With --seal LINES-FILE it makes
such a file instead, in the older form (HMAC-SHA-1, 1000 rounds) or, with a MAC named, in another: what an import must read.
With --data KEY-SAFE LINES-FILE PHRASE-FILE it makes the encryption.data that belongs to a key safe.
"""
import base64
import hashlib
import hmac
import os
import re
import sys
import urllib.parse

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MACS = {"HMAC-SHA-1": ("sha1", 20), "HMAC-SHA-1-128": ("sha1", 16), "HMAC-SHA-256": ("sha256", 32)}
unquote = urllib.parse.unquote


def quote(text):
    return "".join(c if c.isalnum() else "%%%02x" % ord(c) for c in text)


def dictionary(text):
    return {n: unquote(v) for n, v in (item.split("=", 1) for item in text.split(":"))}


def unlock(key, mac, blob):
    name, size = MACS[mac]
    iv, body, tag = blob[:16], blob[16:-size], blob[-size:]
    d = Cipher(algorithms.AES(key[:32]), modes.CBC(iv)).decryptor()
    text = d.update(body) + d.finalize()
    text = text[: -text[-1]]
    if not hmac.compare_digest(hmac.new(key, text, name).digest()[:size], tag):
        sys.exit("the MAC does not match")
    return text


def lock(key, mac, text):
    name, size = MACS[mac]
    iv, pad = os.urandom(16), 16 - len(text) % 16
    e = Cipher(algorithms.AES(key[:32]), modes.CBC(iv)).encryptor()
    return iv + e.update(text + bytes([pad]) * pad) + e.finalize() + hmac.new(key, text, name).digest()[:size]


def config_of(safe, phrase):
    """The config key of a key safe, and its MAC."""
    m = re.fullmatch(r"vmware:key/list/\(pair/\(phrase/([^/]*)/([^,]*),([^,]*),([^)]*)\)\)", safe)
    d, mac = dictionary(unquote(m[2])), unquote(m[3])
    digest = {"PBKDF2-HMAC-SHA-1": "sha1", "PBKDF2-HMAC-SHA-256": "sha256"}[d["pass2key"]]
    size = {"AES-256": 32, "XTS-AES-256": 64}[d["cipher"]]
    locker = hashlib.pbkdf2_hmac(digest, phrase, base64.b64decode(d["salt"]), int(d["rounds"]), size)
    inner = dictionary(unlock(locker, mac, base64.b64decode(unquote(m[4]))).decode())
    assert inner["type"] == "key", inner
    return base64.b64decode(inner["key"]), mac, d


def main():
    if sys.argv[1] == "--data":
        safe, lines, phrase = sys.argv[2], open(sys.argv[3], "rb").read(), open(sys.argv[4], "rb").read()
        key, mac, _ = config_of(safe, phrase)
        print(base64.b64encode(lock(key, mac, lines)).decode())
    elif sys.argv[1] == "--seal":
        lines, phrase, mac = open(sys.argv[2], "rb").read(), open(sys.argv[3], "rb").read(), sys.argv[4]
        digest = "SHA-256" if mac == "HMAC-SHA-256" else "SHA-1"
        salt, rounds = os.urandom(16), 10000 if digest == "SHA-256" else 1000
        locker = hashlib.pbkdf2_hmac(digest.replace("-", "", 1).lower(), phrase, salt, rounds, 32)
        config = os.urandom(32)
        d = "pass2key=PBKDF2-HMAC-%s:cipher=AES-256:rounds=%d:salt=%s" % (
            digest, rounds, base64.b64encode(salt).decode().replace("=", "%3d"))
        inner = "type=key:cipher=AES-256:key=" + base64.b64encode(config).decode().replace("=", "%3d")
        data = base64.b64encode(lock(locker, mac, inner.encode())).decode()
        name = quote(base64.b64encode(os.urandom(8)).decode())
        print('.encoding = "UTF-8"\ndisplayName = "imported"')
        print('encryption.keySafe = "vmware:key/list/(pair/(phrase/%s/%s,%s,%s))"' % (
            name, quote(d), quote(mac), quote(data)))
        print('encryption.data = "%s"' % base64.b64encode(lock(config, mac, lines)).decode())
    else:
        phrase = open(sys.argv[2], "rb").read()
        outer = dict(re.findall(r'^([^ =]+) = "(.*)"$', open(sys.argv[1]).read(), re.M))
        key, mac, d = config_of(outer["encryption.keySafe"], phrase)
        assert "encryption.bundle" not in outer and "encryption.keyId" not in outer, outer
        if d["pass2key"] == "PBKDF2-HMAC-SHA-256" and int(d["rounds"]) < 100000:
            print("few rounds: " + d["rounds"], file=sys.stderr)
        sys.stdout.buffer.write(unlock(key, mac, base64.b64decode(outer["encryption.data"])))


main()
