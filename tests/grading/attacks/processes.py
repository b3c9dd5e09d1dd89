"""Attacks by what a process may use: time, memory, disk, network, other processes."""

from tests.grading.attacks.forms import CALL, DENIED, KEEP, cell, system_call

RESOURCES = [
    cell("endless loop", "while True: pass", "too long", "stopped"),
    cell("endless sleep", "import time\ntime.sleep(1e6)", "too long", "stopped"),
    cell("endless sum in C", "sum(iter(int, 1))", "too long", "stopped"),
    cell("catastrophic regex", "import re\nre.match('(a+)+b', 'a' * 40)", "too long", "stopped"),
    cell("stops itself", "import os\nos.kill(os.getpid(), 19)", "too long", "stopped"),
    cell(
        "ignores all signals",
        """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True: pass
        """,
        "too long",
        "stopped",
    ),
    cell("raises its limits", "import resource\nresource.setrlimit(0, (10**9, 10**9))", "limit"),
    cell("fork bomb", "import os\nwhile True: os.fork()"),
    cell(
        "subprocess bomb", "import subprocess, sys\nwhile True: subprocess.Popen([sys.executable])"
    ),
    cell(
        "thread bomb",
        """
        import threading, time
        while True: threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
        """,
        "thread|too many",
        "error|stopped",
    ),
    cell(
        "memory",
        "a = []\nwhile True: a.append(bytearray(50_000_000))",
        "too much memory|too long",
        "error|stopped",
    ),
    cell(
        "memory of tensors",
        "import torch\na = [torch.ones(10**8) for _ in range(99)]",
        "allocate|too long",
        "error|stopped",
    ),
    cell(
        "shared memory of a map",
        """
        import mmap
        maps = []
        while True:
            maps.append(mmap.mmap(-1, 50_000_000))
            maps[-1].write(b"x" * 50_000_000)
        """,
        "too much memory|Cannot allocate|too long",
        "error|stopped",
    ),
    cell("memory of a file", "import os\nos.memfd_create('x')"),
    cell(
        "disk",
        """
        import os
        for n in range(9999): open(f"{os.environ['TMPDIR']}/{n}", "wb").write(bytes(20_000_000))
        """,
        "No space left|too much|too many files",
        "error|stopped",
    ),
    cell(
        "a file too large",
        "import os\nopen(os.environ['TMPDIR'] + '/x', 'wb').write(bytes(400_000_000))",
        "too large|No space",
    ),
    cell(
        "500 MB of output",
        "for _ in range(500): print('x' * 1_000_000)",
        "too much memory|denoise_windows",
    ),
    cell(
        "500 MB of output to the descriptors",
        """
        import os
        for _ in range(500): os.write(1, b"x" * 1_000_000), os.write(2, b"\\5" * 1_000_000)
        """,
        "denoise_windows",
    ),
    cell(
        "500 MB of results",
        """
        import os
        while True:
            for n in range(3, 99):
                try: os.write(n, b"x" * 1_000_000)
                except OSError: pass
        """,
        "too large",
        "stopped",
    ),
    cell("a large number", "10 ** (10 ** 10)", "too long", "stopped|error"),
]

NETWORK = [
    cell("IPv4", "import socket\n_ = socket.create_connection(('127.0.0.1', 80), 1)\n" + KEEP),
    cell(
        "IPv4, UDP",
        "import socket\n_ = socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 53))\n" + KEEP,
    ),
    cell("IPv6", "import socket\n_ = socket.socket(socket.AF_INET6).connect(('::1', 80))\n" + KEEP),
    cell(
        "DNS",
        "import socket\n_ = socket.getaddrinfo('grader.invalid', 80)\n" + KEEP,
        "resolution|not known|" + DENIED,
    ),
    cell("Unix socket", "import socket\n_ = socket.socket(socket.AF_UNIX).connect('/x')\n" + KEEP),
    cell("abstract socket", "import socket\n_ = socket.socket(1).bind('\\0a')\n" + KEEP),
    cell("raw socket", "import socket\n_ = socket.socket(17, 3)\n" + KEEP),
    cell("netlink", "import socket\n_ = socket.socket(16, 3)\n" + KEEP),
    cell(
        "urllib",
        "import urllib.request\n_ = urllib.request.urlopen('http://127.0.0.1:9')\n" + KEEP,
    ),
    system_call("io_uring", 425, "8, 0"),
    system_call("a socket by the numbers of i386", 0x40000000 + 41, "2, 1, 0"),
]

PROCESSES = [
    system_call("ptrace of the parent", 101, "16, os.getppid(), 0, 0"),
    system_call("ptrace of itself", 101, "0, 0, 0, 0"),
    system_call("pidfd of the parent", 434, "os.getppid(), 0"),
    system_call("memory of the parent", 310, "os.getppid(), 0, 0, 0, 0, 0"),
    system_call("kcmp", 312, "os.getppid(), os.getpid(), 0, 0, 0"),
    system_call("performance counters", 298, "0, 0, -1, -1, 0"),
    system_call("user namespace", 272, "0x10000000"),
    system_call("a new process by clone", 56, "17, 0, 0, 0, 0"),
    system_call("mount", 165, "0, 0, 0, 0, 0"),
    system_call("chroot", 161, "b'/tmp'"),
    system_call("System V shared memory", 29, "4711, 4096, 0o1666"),
    system_call("System V messages", 68, "4711, 0o1666"),
    system_call("message queue", 240, "b'x', 66, 0o666, 0"),
    system_call("keyring", 248, "b'user', b'leak', b'x', 1, ctypes.c_int(-4)"),
    system_call("keys of the session", 250, "0, ctypes.c_int(-3), 0"),
    system_call("userfaultfd", 323, "1"),
    system_call("bpf", 321, "0, 0, 0"),
    system_call("inotify", 294, "0"),
    system_call("file handles", 304, "-100, 0, 0"),
    cell("stops the parent", "import os\n_ = os.kill(os.getppid(), 19)\n" + KEEP),
    cell("kills the parent", "import os\n_ = os.kill(os.getppid(), 9)\n" + KEEP),
    cell("interrupts the parent", "import os\n_ = os.kill(os.getppid(), 2)\n" + KEEP),
    cell("kills everything", "import os\n_ = os.kill(-1, 9)\n" + KEEP),
    cell("kills its group", "import os\n_ = os.killpg(0, 9)\n" + KEEP),
    cell(
        "a queued signal",
        CALL + "if libc.sigqueue(os.getppid(), 9, 0): raise OSError('denied')",
        "denied",
    ),
    cell(
        "limits of the parent",
        "import os, resource\n_ = resource.prlimit(os.getppid(), 0, (0, 0))\n" + KEEP,
    ),
    cell(
        "priority of the parent",
        "import os\n_ = os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)\n" + KEEP,
    ),
    cell(
        "processors of the parent",
        "import os\n_ = os.sched_setaffinity(os.getppid(), {0})\n" + KEEP,
    ),
    cell("a session of its own", "import os\n_ = os.setsid()\n" + KEEP),
    cell(
        "a process that writes after the end",
        """
        import os, time
        if not os.fork():
            os.setsid()
            if not os.fork():
                time.sleep(1)
                for n in range(3, 99):
                    try: os.write(n, b'{"name": "a step"}')
                    except OSError: pass
        raise RuntimeError("SUCCEEDED")
        """,
    ),
    cell(
        "another program",
        "import subprocess\n_ = subprocess.run(['sh', '-c', 'ls /'], check=True)\n" + KEEP,
    ),
    cell("root", "import os\n_ = os.setuid(0)\n" + KEEP, "not permitted|Invalid|denied"),
]
