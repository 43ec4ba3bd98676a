from __future__ import annotations

import json

import pytest

from cd.sandbox.seccomp import PROFILE, SOCKET_FAMILIES, profile

ALLOWED = {name for rule in profile()["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
FREELY = {
    name
    for rule in profile()["syscalls"]
    if rule["action"] == "SCMP_ACT_ALLOW" and not rule["args"]
    for name in rule["names"]
}

#: What changes the machine, reaches other processes' kernel objects, or was a way out of containers.
DANGEROUS = """
acct add_key bpf clock_adjtime clock_settime create_module delete_module fanotify_init finit_module fsconfig fsmount
fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount move_pages name_to_handle_at
nfsservctl open_by_handle_at open_tree perf_event_open pivot_root pidfd_getfd quotactl quotactl_fd reboot request_key
setdomainname sethostname setns settimeofday socketcall stime swapoff swapon syslog umount umount2 unshare uselib
userfaultfd ustat vhangup vm86 vm86old
"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_what_is_dangerous_is_not_in(name: str) -> None:
    assert name not in ALLOWED


def test_only_local_families_of_sockets() -> None:
    assert "socket" not in FREELY
    families = [rule["args"][0]["value"] for rule in profile()["syscalls"] if rule["names"] == ["socket"]]
    assert families == list(SOCKET_FAMILIES) == [1, 2, 10, 16]


def test_clone_makes_no_namespace_and_clone3_is_not_there() -> None:
    rules = {rule["names"][0]: rule for rule in profile()["syscalls"] if rule["names"][0] in ("clone", "clone3")}
    assert "clone" not in FREELY
    (argument,) = rules["clone"]["args"]
    assert argument == {"index": 0, "value": 0x7E020080, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    assert (rules["clone3"]["action"], rules["clone3"]["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_no_call_is_named_twice() -> None:
    names = [name for rule in profile()["syscalls"] if not rule["args"] for name in rule["names"]]
    assert sorted(names) == sorted(set(names))


def test_only_the_machine_s_own_architecture() -> None:
    """32-bit calls have other numbers, under which a filter for 64 bits would let them pass."""
    assert profile()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    assert json.loads(PROFILE) == profile()
