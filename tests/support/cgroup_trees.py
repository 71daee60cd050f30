"""Trees of control groups as Linux shows them, to be written below any root."""

import re

GIB = 1 << 30


def make_tree(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n", encoding="ascii")


V2 = {
    "proc/self/cgroup": "0::/job/step",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory",
    "sys/fs/cgroup/job/memory.max": str(8 * GIB),
    "sys/fs/cgroup/job/memory.current": str(5 * GIB),
    "sys/fs/cgroup/job/memory.stat": f"anon {3 * GIB}\ninactive_file {GIB}\nactive_file 7",
    "sys/fs/cgroup/job/cpu.max": "max 100000",
    "sys/fs/cgroup/job/step/memory.max": "max",
    "sys/fs/cgroup/job/step/cpu.max": "150000 100000",
    "sys/fs/cgroup/job/step/cpu.stat": "usage_usec 1000000\nnr_periods 100\nnr_throttled 10",
}
V1 = {
    "proc/self/cgroup": "9:name=systemd:/x\n5:memory:/docker/1a\n2:cpu,cpuacct:/docker/1a\n0::/",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": str(8 * GIB),  # the container's own
    "sys/fs/cgroup/memory/memory.usage_in_bytes": str(5 * GIB),
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/cpu/cpu.stat": "nr_periods 100\nnr_throttled 10\nthrottled_time 5",
    "sys/fs/cgroup/cpuacct/cpuacct.usage": "1000000000",
}


def below(group, tree):
    """Return a version 1 tree as seen on a host, with the container's group below the root."""
    pattern = re.compile(r"(sys/fs/cgroup/\w+)/")
    return {pattern.sub(rf"\1/{group}/", path): text for path, text in tree.items()}


LATER_V1 = {
    "sys/fs/cgroup/cpu/cpu.stat": "nr_periods 120\nnr_throttled 15\nthrottled_time 9",
    "sys/fs/cgroup/cpuacct/cpuacct.usage": "4000000000",
}
LATER_V2 = {
    "sys/fs/cgroup/job/step/cpu.stat": "usage_usec 4000000\nnr_periods 120\nnr_throttled 15",
}
"""After two seconds of work, with a quarter of the periods throttled."""
