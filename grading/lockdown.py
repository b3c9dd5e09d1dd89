"""Rights that a Linux process gives up for ever, with all that it starts: Landlock and seccomp.

Landlock restricts files and signals, seccomp system calls. Both need no rights of the
administrator. The module needs only the standard library: it runs as a program too, which gives its
rights up and then executes another one, and the worker's children use it before an answer.

What it protects against: access to other files than those named, sockets, reading or tracing other
processes, signals to them, changes of owners, modes and times, memory that no process counts
(shared memory, memfd), keyrings, namespaces.

What it does not protect against: use of processor time and of memory below the limits; names and
sizes of files that any user may see.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Sequence

SIGNALS_ABI = 6  # of Landlock, since Linux 6.12: the first that restricts signals
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
CAP_DAC_READ_SEARCH = 2  # the capability to read files of all users
CAPABILITY_VERSION = 0x20080522
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on both machines
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
IOCTL_DEV = 1 << 15
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights of files an ABI has; later ones 16
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # the others are of folders
ALL_NETWORK = 0b11  # TCP: bind and connect
ALL_SCOPES = 0b11  # abstract Unix sockets and signals, both only among processes of the same domain

MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit's number, column below
# System calls that fail with EPERM, with their numbers on x86-64 and AArch64.
FORBIDDEN = {
    # network, and calls that reach it without a socket
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    # the process group, by which the whole tree is killed
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # memory that outlives a process or that none counts
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    # what Landlock does not restrict of a file
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "open_by_handle_at": (304, 265),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
}
FORK = {"fork": (57, None), "vfork": (58, None)}
CLONE, CLONE3 = (56, 220), (435, 435)
PRLIMIT = (302, 261)
SCHED_SETAFFINITY = (203, 122)
SIGNALS = {"kill": (62, 129), "tgkill": (234, 131)}
OTHER_SIGNALS = {
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
CLONE_THREAD = 0x10000
CLONE_NEW = 0x7E020080  # all flags of namespaces
# BPF: load a word; compare and jump; return
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, DENY, NO_CALL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in what a filter sees
X32 = 0x40000000  # x86-64's second numbering of its system calls

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the version of Landlock in this kernel, 0 for none."""
    version: int = _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(version, 0)


def restrict_files(read: Iterable[str], write: Iterable[str]) -> None:
    """Allow only these files and folders, and, since `SIGNALS_ABI`, no signals to other processes.

    Processes that start later may still send signals to each other.

    Args:
        read: files and folders to read and execute.
        write: files and folders to read, write, create in and remove from.
    Raises:
        OSError: the kernel has no Landlock.
    """
    version = abi()
    rights = (1 << FILE_RIGHTS.get(version, 16)) - 1
    values = (rights, ALL_NETWORK if version >= 4 else 0, ALL_SCOPES)
    ruleset = _ruleset(values[: 3 if version >= SIGNALS_ABI else 1 + (version >= 4)])
    for path in read:
        _allow(ruleset, path, READ_FILE | READ_DIR | EXECUTE)
    for path in write:
        _allow(ruleset, path, rights & ~IOCTL_DEV)
    _restrict(ruleset)


def restrict_signals() -> None:
    """Allow signals only to this process and to those that it starts later.

    Raises:
        OSError: the kernel has no Landlock, or one older than `SIGNALS_ABI`.
    """
    if abi() < SIGNALS_ABI:
        raise OSError(errno.ENOSYS, f"Landlock has ABI {abi()}, {SIGNALS_ABI} is needed")
    _restrict(_ruleset((0, 0, ALL_SCOPES)))


def _ruleset(handled: Sequence[int]) -> int:
    attributes = struct.pack(f"{len(handled)}Q", *handled)
    return _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)


def _restrict(ruleset: int) -> None:
    give_up_new_rights()
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= OF_A_FILE
    _call(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
    os.close(descriptor)


def filter_calls(processes: bool = True, signals: bool = True) -> None:
    """Let the system calls in `FORBIDDEN` fail, here and in all that this process starts.

    Args:
        processes: may start other processes; threads are always allowed.
        signals: may send signals to other processes.
    Raises:
        OSError: another machine than `MACHINES`, or a kernel without seccomp.
    """
    give_up_new_rights()
    program = _program(processes, signals)
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    _prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(header))


def _program(processes: bool, signals: bool) -> list[bytes]:
    """Return the instructions of the filter."""
    if platform.machine() not in MACHINES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {platform.machine()}")
    architecture, column = MACHINES[platform.machine()]
    forbidden = FORBIDDEN | ({} if processes else FORK) | ({} if signals else OTHER_SIGNALS)
    numbers = [call[column] for call in forbidden.values()]
    program = [
        *(_step(LOAD, ARCHITECTURE), _step(EQUAL, architecture, 1, 0), _step(RETURN, DENY)),
        _step(LOAD, NUMBER),
    ]
    if platform.machine() == "x86_64":
        program += [_step(AT_LEAST, X32, 0, 1), _step(RETURN, DENY)]
    for number in numbers:
        if number is not None:
            program += [_step(EQUAL, number, 0, 1), _step(RETURN, DENY)]
    program += [_step(EQUAL, CLONE3[column], 0, 1), _step(RETURN, NO_CALL)]
    if processes:
        program += _if_argument(CLONE[column], ANY_BIT, CLONE_NEW, DENY, ALLOW)
    else:
        program += _if_argument(CLONE[column], ANY_BIT, CLONE_THREAD, ALLOW, DENY)
    for call in (PRLIMIT, SCHED_SETAFFINITY):
        program += _if_argument(call[column], EQUAL, 0, ALLOW, DENY)
    if not signals:
        for call in SIGNALS.values():
            program += _if_argument(call[column], EQUAL, os.getpid(), ALLOW, DENY)
    return [*program, _step(RETURN, ALLOW)]


def _if_argument(number: int, test: int, value: int, yes: int, no: int) -> list[bytes]:
    """Return the steps for one system call, whose first argument decides."""
    return [
        _step(EQUAL, number, 0, 4),
        _step(LOAD, FIRST_ARGUMENT),
        _step(test, value, 0, 1),
        _step(RETURN, yes),
        _step(RETURN, no),
    ]


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)


def give_up_new_rights() -> None:
    """Let no program that is executed later have more rights than this process."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Let no other process of the same user read this one's memory, files or environment."""
    _prctl(PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    _prctl(PR_SET_PDEATHSIG, 9)


def _prctl(option: int, value: int, argument: object = 0) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(value), argument or zero, zero, zero):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


def become(user: int, may_read: bool) -> None:
    """Become another user, who owns nothing. Needs root.

    Args:
        user: its number.
        may_read: may read files of all users, where root may: only with Landlock, which says which.
    """
    _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    try:
        _set_capabilities(1 << CAP_DAC_READ_SEARCH if may_read else 0)
        if may_read:
            _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, ctypes.c_ulong(CAP_DAC_READ_SEARCH))
    except PermissionError:  # a container's root may not
        _set_capabilities(0)


def _set_capabilities(bits: int) -> None:
    """Keep only these capabilities: effective, permitted and inheritable."""
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    if _libc.capset(header, struct.pack("6I", bits, bits, bits, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capset")


def limit(limits: dict[str, int]) -> None:
    """Set limits of the kernel, by the names in the module `resource`, such as RLIMIT_FSIZE."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def main(arguments: Sequence[str]) -> None:
    """Give the rights up that a JSON text names, and execute a command."""
    settings = json.loads(arguments[0])
    command = list(arguments[1:])
    limit(settings["limits"])
    if settings["user"]:
        become(settings["user"], settings["landlock"])
    os.chdir(settings["folder"])
    die_with_parent()
    if settings["landlock"]:
        restrict_files(settings["read"], settings["write"])
    filter_calls()
    os.execve(command[0], command, settings["environment"])


if __name__ == "__main__":
    main(sys.argv[1:])
