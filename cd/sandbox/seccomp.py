"""The system calls that a stage may make.

An allow-list of our own, so that the same rules hold on every engine: what Python, Node, Go, Java, compilers,
databases and browsers use is in; what changes the machine, sees other processes' kernel objects or has been a
way out of containers is not (mount, namespaces, keyrings, bpf, perf, userfaultfd, io_uring, modules, ...).
Sockets are limited to families that stay in the network namespace or in the machine's own files: Unix, IPv4,
IPv6 and netlink. Only the machine's own architecture is let in, since 32-bit calls would pass under other numbers.
"""

from __future__ import annotations

import json
from typing import Any

FILES = """
access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr
fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr
lstat mkdir mkdirat mknod mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice
stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat
utimes vmsplice write writev chroot memfd_create
"""
MEMORY = """
brk get_mempolicy madvise mbind membarrier mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall
munmap pkey_alloc pkey_free pkey_mprotect set_mempolicy process_madvise
"""
PROCESSES = """
arch_prctl capget capset execve execveat exit exit_group fork getegid geteuid getgid getgroups getpgid getpgrp getpid
getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid kill personality pidfd_open
pidfd_send_signal prctl prlimit64 rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo seccomp set_robust_list get_robust_list set_tid_address setfsgid
setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid
sigaltstack tgkill times tkill vfork wait4 waitid restart_syscall landlock_create_ruleset landlock_add_rule
landlock_restrict_self ptrace process_vm_readv process_vm_writev
"""
TIME_AND_SCHEDULING = """
alarm clock_getres clock_gettime clock_nanosleep getcpu getitimer gettimeofday ioprio_get ioprio_set nanosleep pause
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
"""
WAITING = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
futex futex_waitv futex_wake futex_wait futex_requeue poll ppoll pselect6 select signalfd signalfd4
io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
"""
NETWORK = """
accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto
setsockopt shutdown socketpair
"""
SHARED_MEMORY = """
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop
semtimedop shmat shmctl shmdt shmget
"""
SYSTEM = "getrandom sysinfo uname"

#: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Not AF_ALG, AF_VSOCK, AF_PACKET and the forty others.
SOCKET_FAMILIES = (1, 2, 10, 16)
#: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}: a process that asks for one of them is refused.
NAMESPACE_FLAGS = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x80
ENOSYS = 38


def _allow(names: str) -> dict[str, Any]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", "args": []}


def _argument(name: str, value: int, op: str = "SCMP_CMP_EQ", second: int = 0) -> dict[str, Any]:
    return {
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": value, "valueTwo": second, "op": op}],
    }


def profile() -> dict[str, Any]:
    """The profile in the engine's own format."""
    groups = (FILES, MEMORY, PROCESSES, TIME_AND_SCHEDULING, WAITING, NETWORK, SHARED_MEMORY, SYSTEM)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            *(_allow(group) for group in groups),
            *(_argument("socket", family) for family in SOCKET_FAMILIES),
            _argument("clone", NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ"),
            # Its flags lie in memory, where no filter can look: libraries fall back to clone on "no such call".
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, "args": []},
        ],
    }


PROFILE = json.dumps(profile(), separators=(",", ":"))
