"""A real S3 server for tests: Ceph's RADOS Gateway, in memory and local only.

Needs the Debian packages radosgw, ceph-mon, ceph-osd and ceph-common. One monitor, one in-memory
object store and one gateway run in a separate folder and change nothing in the system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid

from s3_servers import KEY, SECRET, Server, free_port, running, wait_for

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{old_mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth allow insecure global id reclaim = true
run dir = {run}
admin socket = {run}/$name.asok
pid file = {run}/$name.pid
log file = {run}/$name.log
mon cluster log file = {run}/cluster.log
crash dir = {run}
keyring = {run}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 4294967296
osd max object name len = 256
setuser match path =
[mon.a]
mon data = {run}/mon
mon initial members = a
[osd.0]
osd data = {run}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw data = {run}/rgw
"""


def missing_programs():
    """Return the programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextlib.contextmanager
def ceph(folder):
    """Run a gateway in an empty folder."""
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    fsid, osd_uuid = str(uuid.uuid4()), str(uuid.uuid4())
    mon, old_mon, rgw = free_port(), free_port(), free_port()
    configuration = folder / "ceph.conf"
    values = {"fsid": fsid, "run": folder, "mon": mon, "old_mon": old_mon, "rgw": rgw}
    configuration.write_text(CONFIGURATION.format(**values))
    keyring = str(folder / "keyring")
    environment = {**os.environ, "CEPH_CONF": str(configuration)}

    def run(*command):
        subprocess.run(
            command, check=True, timeout=90, env=environment, capture_output=True, text=True
        )

    def make_key(name, *capabilities):
        caps = [part for what in capabilities for part in ("--cap", what, "allow *")]
        run("ceph-authtool", keyring, "--gen-key", "-n", name, *caps)

    run("ceph-authtool", "--create-keyring", keyring)
    make_key("mon.", "mon")
    for name in ("client.admin", "osd.0", "client.rgw"):
        make_key(name, "mon", "osd", "mgr")
    own = ["-c", str(configuration)]
    address = f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{old_mon}]"
    run(
        *["ceph-mon", *own, "--mkfs", "-i", "a", "--public-addr", f"127.0.0.1:{mon}"],
        *["--fsid", fsid, "--keyring", keyring],
    )
    with contextlib.ExitStack() as stack:
        start = [*own, "-f"]
        stack.enter_context(running(["ceph-mon", *start, "-i", "a", "--public-addrv", address]))
        admin = ["ceph", *own, "--keyring", keyring]
        run(*admin, "osd", "new", osd_uuid)
        run("ceph-osd", *own, "-i", "0", "--mkfs", "--osd-uuid", osd_uuid, "--keyring", keyring)
        stack.enter_context(running(["ceph-osd", *start, "-i", "0", "--keyring", keyring]))
        run(*admin, "osd", "crush", "add-bucket", "h", "host")
        run(*admin, "osd", "crush", "move", "h", "root=default")
        run(*admin, "osd", "crush", "add", "osd.0", "1", "host=h")
        command = ["radosgw", *start, "-n", "client.rgw", "--keyring", keyring]
        gateway = stack.enter_context(running(command))
        wait_for(f"http://127.0.0.1:{rgw}/", gateway)
        run(
            *["radosgw-admin", *own, "--keyring", keyring, "user", "create", "--uid=tester"],
            *["--display-name=tester", f"--access-key={KEY}", f"--secret-key={SECRET}"],
        )
        yield Server("ceph", f"http://127.0.0.1:{rgw}")
