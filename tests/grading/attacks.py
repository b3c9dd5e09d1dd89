"""Attacks of students on the grader, as answers to exercise `EXERCISE`, and what becomes of each.

An attack that reaches what it is after raises an error with the word `SUCCEEDED`.
"""

import textwrap
from dataclasses import dataclass

EXERCISE = "2.1 (1)"
SUCCEEDED = "SUCCEEDED"
FUNCTION = "def denoise_windows(windows, noise, alpha_bar, alpha_bar_prev):\n"
RIGHT = (
    FUNCTION + "    x_0 = (windows - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()\n"
    "    return alpha_bar_prev.sqrt() * x_0 + (1 - alpha_bar_prev).sqrt() * noise\n"
)
DENIED = "not permitted|Permission denied"
CALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
KEEP = "raise RuntimeError('SUCCEEDED')"


@dataclass(frozen=True)
class Attack:
    """An answer, and the status and the words in the message that it has to get."""

    name: str
    answer: str
    status: str
    message: str = ""

    def __str__(self) -> str:
        return self.name


def cell(name: str, code: str, message: str = DENIED, status: str = "error") -> Attack:
    """Return an attack by the lines of a cell."""
    return Attack(name, textwrap.dedent(code).strip() + "\n", status, message)


def system_call(name: str, number: int, arguments: str = "0, 0, 0") -> Attack:
    """Return an attack by one system call of x86-64."""
    code = f"""
        {CALL.strip()}
        if libc.syscall({number}, {arguments}) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        {KEEP}
    """.replace(CALL.strip(), CALL.strip().replace("\n", "\n        "))
    return cell(name, code)


def returned(name: str, value: str, message: str = "", status: str = "wrong") -> Attack:
    """Return an attack whose function returns a value."""
    code = textwrap.indent(textwrap.dedent(value).strip(), "    ")
    return Attack(name, f"{FUNCTION}{code}\n", status, message)


def patched(name: str, code: str, status: str = "wrong", message: str = "") -> Attack:
    """Return an attack that replaces something of the process, and then a wrong answer."""
    code = textwrap.dedent(code).strip()
    wrong = f"{FUNCTION}    return torch.full_like(windows, 0.5)\n"
    return Attack(name, f"{code}\n\n\n{wrong}", status, message)


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
        "MemoryError|too long",
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
        "No space left|too much",
        "error|stopped",
    ),
    cell(
        "a file too large",
        "import os\nopen(os.environ['TMPDIR'] + '/x', 'wb').write(bytes(400_000_000))",
        "too large|No space",
    ),
    cell("500 MB of output", "for _ in range(500): print('x' * 1_000_000)", "MemoryError|name"),
    cell(
        "500 MB of output to the descriptors",
        "import os\nfor _ in range(500): os.write(1, b'x' * 1_000_000); os.write(2, b'\\5' * 1000000)",
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
    cell("IPv4", "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)\n" + KEEP),
    cell(
        "IPv4, UDP",
        "import socket\nsocket.socket(2, 2).sendto(b'x', ('192.0.2.1', 53))\n" + KEEP,
    ),
    cell("IPv6", "import socket\nsocket.socket(socket.AF_INET6).connect(('::1', 80))\n" + KEEP),
    cell(
        "DNS",
        "import socket\nsocket.getaddrinfo('grader.invalid', 80)\n" + KEEP,
        "resolution|not known|" + DENIED,
    ),
    cell("Unix socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('/x')\n" + KEEP),
    cell("abstract socket", "import socket\nsocket.socket(1).bind('\\0a')\n" + KEEP),
    cell("raw socket", "import socket\nsocket.socket(17, 3)\n" + KEEP),
    cell("netlink", "import socket\nsocket.socket(16, 3)\n" + KEEP),
    cell(
        "urllib",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')\n" + KEEP,
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
    cell("stops the parent", "import os\nos.kill(os.getppid(), 19)\n" + KEEP),
    cell("kills the parent", "import os\nos.kill(os.getppid(), 9)\n" + KEEP),
    cell("interrupts the parent", "import os\nos.kill(os.getppid(), 2)\n" + KEEP),
    cell("kills everything", "import os\nos.kill(-1, 9)\n" + KEEP),
    cell("kills its group", "import os\nos.killpg(0, 9)\n" + KEEP),
    cell(
        "a queued signal",
        CALL + "if libc.sigqueue(os.getppid(), 9, 0): raise OSError('denied')",
        "denied",
    ),
    cell(
        "limits of the parent",
        "import os, resource\nresource.prlimit(os.getppid(), 0, (0, 0))\n" + KEEP,
    ),
    cell(
        "priority of the parent",
        "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)\n" + KEEP,
    ),
    cell(
        "processors of the parent",
        "import os\nos.sched_setaffinity(os.getppid(), {0})\n" + KEEP,
    ),
    cell("a session of its own", "import os\nos.setsid()\n" + KEEP),
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
        "import subprocess\nsubprocess.run(['sh', '-c', 'ls /'], check=True)\n" + KEEP,
    ),
    cell("root", "import os\nos.setuid(0)\n" + KEEP, "not permitted|Invalid|denied"),
]

SECRETS = [
    cell(
        "environment of the grader",
        """
        import os
        if "GRADER_SECRET" in str(os.environ): raise RuntimeError("SUCCEEDED")
        for process in [p for p in os.listdir("/proc") if p.isdigit()]:
            for name in ("environ", "mem", "maps", "auxv", "stack", "syscall"):
                try: text = open(f"/proc/{process}/{name}", "rb").read(100_000)
                except OSError: continue
                if b"GRADER_SECRET" in text or name == "mem": raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "descriptors of the parent",
        """
        import os
        for process in [p for p in os.listdir("/proc") if p.isdigit()]:
            if int(process) == os.getpid(): continue
            for n in range(20):
                try: open(f"/proc/{process}/fd/{n}", "rb")
                except OSError: continue
                raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "roots of other processes",
        """
        import os
        for process in [p for p in os.listdir("/proc") if p.isdigit()]:
            if int(process) == os.getpid(): continue
            for name in ("root", "cwd", "exe"):
                try: os.readlink(f"/proc/{process}/{name}")
                except OSError: continue
                raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "solutions and recipes in files",
        """
        import os
        words = ("x_0 = (windows " + "- (1", "RECIPES" + ".add(")
        tops = {os.sys.path[0], os.environ["TMPDIR"], "/", "/tmp", "/dev/shm", "/home", "/root"}
        seen = set()
        for top in tops:
            for folder, folders, names in os.walk(top):
                folders[:] = [f for f in folders if f not in ("proc", "sys", "usr", "site-packages",
                    "lib", "lib64", "bin", "sbin", ".pyenv", "assets", "weights", ".venv")]
                if folder in seen: continue
                seen.add(folder)
                for name in names:
                    if not name.endswith((".py", ".ipynb", ".json", ".txt")): continue
                    try: text = open(os.path.join(folder, name), errors="replace").read()
                    except OSError: continue
                    if any(word in text for word in words):
                        raise RuntimeError(f"SUCCEEDED {folder}/{name}")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "the solution among all objects",
        """
        import gc, sys
        word = ")rab_ahpla - 1( - swodniw( = 0_x"[::-1][:int("31")]
        frame, items = sys._getframe(), gc.get_objects()
        while frame:
            items += [frame.f_locals, frame.f_globals, frame.f_code.co_consts]
            frame = frame.f_back
        for item in items:
            values = item.values() if type(item) is dict else item
            if type(item) in (dict, list, tuple) and any(
                type(value) is str and word in value and value is not word or type(value) is bytes and word.encode() in value
                for value in list(values)
            ):
                raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "the solution in its memory",
        """
        first, second = b"x_0 = (win", b"dows - (1 - alpha_bar)"
        ranges = [line.split()[0].split("-") for line in open("/proc/self/maps") if "rw-p" in line]
        memory = open("/proc/self/mem", "rb", 0)
        for low, high in [(int(a, 16), int(b, 16)) for a, b in ranges]:
            memory.seek(low)
            data, place = memory.read(high - low), -1
            while (place := data.find(first, place + 1)) >= 0:
                if data[place + 10 : place + 32] == second: raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing|Permission denied",
    ),
    cell(
        "the next task in stdin",
        """
        import os
        os.write(2, b"\\5")
        for n in (0, 1, 2):
            if os.read(n, 10): raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "all descriptors",
        """
        import os, stat
        for n in range(1024):
            try: mode = os.fstat(n).st_mode
            except OSError: continue
            if stat.S_ISFIFO(mode):
                try: os.read(n, 10)
                except OSError: continue
                raise RuntimeError("SUCCEEDED")
            if stat.S_ISREG(mode): raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
]

LEFT_BEHIND = [
    cell(
        "leaves a note",
        """
        import os, sys
        places = (os.environ["TMPDIR"], "/tmp", "/dev/shm", "/var/tmp", os.getcwd(), *sys.path)
        for place in places:
            try:
                open(f"{place}/leak.py", "w").write("leak")
                open(f"{place}/.leak", "w").write("leak")
                os.mkdir(f"{place}/leaks")
                os.symlink("/etc", f"{place}/leaks/link")
            except OSError: pass
        raise OSError("left")
        """,
        "left",
    ),
    cell(
        "reads a note of the exercise before",
        """
        import os, sys
        for place in (os.environ["TMPDIR"], "/tmp", "/dev/shm", "/var/tmp", os.getcwd(), *sys.path):
            if os.path.exists(f"{place}/leak.py") or os.path.exists(f"{place}/.leak"):
                raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "folders that are hard to remove",
        """
        import os
        os.chdir(os.environ["TMPDIR"])
        os.mkfifo("fifo")
        os.symlink("/", "-rf")
        os.symlink(".", "*")
        for n in range(2000): open(f"--no-preserve-root{n}", "w")
        os.mkdir("closed", 0o300)
        os.mkdir("closed/inside")
        open("closed/file", "w")
        for _ in range(2000):
            os.mkdir("x" * 100)
            os.chdir("x" * 100)
        raise OSError("left")
        """,
        "left",
    ),
    cell(
        "a link in the place of its folder",
        """
        import os, shutil
        os.chdir("/")
        shutil.rmtree(os.environ["TMPDIR"] + "/course")
        os.symlink("/usr", os.environ["TMPDIR"] + "/course")
        raise OSError("left")
        """,
        "left",
    ),
    cell(
        "code for later starts of Python",
        """
        import site, sys, os
        for place in [*sys.path, site.getsitepackages()[0], os.path.dirname(os.__file__)]:
            for name in ("sitecustomize.py", "usercustomize.py", "x.pth"):
                try: open(os.path.join(place, name), "w")
                except OSError: continue
                if os.path.exists(place): raise RuntimeError(f"SUCCEEDED {place}")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "changes the course",
        "import course\nopen(course.__path__[0] + '/x.py', 'w')",
        "Read-only|" + DENIED,
    ),
    cell("changes modes", "import os, sys\nos.chmod(sys.executable, 0o777)", "Read-only|" + DENIED),
]

RESULTS = [
    cell(
        "results of another exercise",
        """
        import json, os
        head = {"exercise": "2.1 (2)", "stopped": "", "code": 0, "seconds": 0, "memory": 0, "size": 0}
        for n in range(3, 99):
            try: os.write(n, json.dumps(head).encode() + b"\\n")
            except OSError: pass
        """,
        "damaged",
    ),
    cell(
        "forged values, and the end",
        """
        import os, numpy as np
        from grading import pipe
        for n in range(3, 99):
            try: pipe.send(n, {name: np.zeros((3, 5, 6, 6)) for name in ("a step", "the last step")})
            except OSError: pass
        os._exit(0)
        """,
        "relative difference",
        "wrong",
    ),
    cell(
        "values of enormous shapes",
        """
        import os
        for n in range(3, 99):
            for shape in ("[0, 9223372036854775807, 9223372036854775807]", "[1e400]",
                          "[0, " + "9" * 400 + "]"):
                try: os.write(n, b'{"name": "a step' + shape[:9].encode() + b'", "dtype": "bool", "shape": '
                    + shape.encode() + b"}\\n")
                except OSError: pass
        os._exit(0)
        """,
        "damaged|no value",
        "error|wrong",
    ),
    cell(
        "a name that is no text",
        """
        import os
        for n in range(3, 99):
            try: os.write(n, b'{"name": "\\\\ud800\\\\u0000<b>", "dtype": "bool", "shape": [0]}\\n' * 2)
            except OSError: pass
        os._exit(0)
        """,
        "damaged",
    ),
    cell(
        "pickled results",
        """
        import os, pickle
        class Evil:
            def __reduce__(self): return os.system, ("touch /tmp/evil",)
        for n in range(3, 99):
            try: os.write(n, pickle.dumps(Evil()) + b"\\n")
            except OSError: pass
        os._exit(0)
        """,
        "damaged",
    ),
    cell(
        "a forged message of the grader",
        """
        import os, numpy as np
        from grading import pipe
        for n in range(3, 99):
            try: pipe.send(n, {"!error": np.zeros(5_000_000, np.uint8)})
            except OSError: pass
        os._exit(0)
        """,
        "",
    ),
    cell("closes all descriptors", "import os\nos.closerange(0, 1024)", "ended|no value"),
    cell("sys.exit", "import sys\nsys.exit(0)", "SystemExit"),
    cell("os._exit", "import os\nos._exit(0)", "no value", "error|wrong"),
    cell("os.abort", "import os\nos.abort()", "ended the process"),
    cell("a crash", "import ctypes\nctypes.string_at(0)", "ended the process"),
    cell("kills itself", "import os\nos.kill(os.getpid(), 9)", "ended the process"),
    returned("sys.exit in the function", "import sys\nsys.exit(0)", "SystemExit", "error"),
    returned("os._exit in the function", "import os\nos._exit(0)", "no value", "error|wrong"),
    returned("an interrupt", "raise KeyboardInterrupt", "KeyboardInterrupt", "error"),
    returned("no end of calls", "return denoise_windows(1, 1, 1, 1)", "recursion", "error"),
    returned("nothing", "return None", "", "error"),
    returned("NaN", "return torch.full_like(windows, torch.nan)", "not finite"),
    returned("infinity", "return torch.full_like(windows, torch.inf)", "not finite"),
    returned("a huge shape", "return torch.zeros(1).expand(10**10)", "", "error|stopped"),
    returned("no values of a huge shape", "return torch.zeros(0, 10**15)", "shape", "error|wrong"),
    returned("text", "return '<script>alert(1)</script>'", "", "error"),
    returned("an array of objects", "import numpy\nreturn numpy.array([print])", "", "error"),
    returned(
        "a tensor that always agrees",
        """
        class Agree(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):
                if function.__name__ in ("allclose", "equal", "eq", "isclose"): return True
                return torch.Tensor.detach(args[0].as_subclass(torch.Tensor))
            def __eq__(self, other): return True
        return torch.zeros_like(windows).as_subclass(Agree)
        """,
    ),
    returned(
        "an object that equals all",
        """
        class Equal:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __array__(self, *args, **kwargs): return self
            def __getattr__(self, name): return lambda *args, **kwargs: self
            __hash__ = None
        return Equal()
        """,
        "",
        "error",
    ),
    returned(
        "an array class that always agrees",
        """
        import numpy as np
        class Agree(np.ndarray):
            def __array_ufunc__(self, *args, **kwargs): return np.True_
            def __array_function__(self, *args, **kwargs): return np.True_
        return np.zeros(tuple(windows.shape)).view(Agree)
        """,
    ),
    cell(
        "an error that cannot be shown",
        """
        class Silent(Exception):
            def __str__(self): raise SystemExit(0)
            __repr__ = __str__
        raise Silent
        """,
        "",
        "error|wrong",
    ),
    cell(
        "an error that takes for ever to show",
        """
        class Slow(Exception):
            def __str__(self):
                while True: pass
        raise Slow
        """,
        "too long",
        "stopped",
    ),
    cell("HTML in a message", "raise ValueError('<script>alert(1)</script>')", "script"),
    cell("odd characters", "raise ValueError('\\ud800 \\0 \\x1b[31m \\u202e')", "ValueError"),
    cell("a message of 10 MB", "raise ValueError('x' * 10_000_000)", "ValueError"),
    cell("an odd name of an error", "raise type('<b>', (Exception,), {})('x')", "x"),
    Attack("a source that is no text", "x = '\ud800\0'", "error"),
    Attack("a source nested too deeply", "(" * 10_000 + ")" * 10_000, "error"),
]

REPLACED = [
    patched(
        "the course's checks",
        """
        import course.checks.common, sys
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("course.checks"):
                for name in ("close", "check", "explain"):
                    if hasattr(module, name): setattr(module, name, lambda *args, **kwargs: True)
        """,
    ),
    patched(
        "comparisons of torch and numpy",
        """
        import torch, numpy
        for name in ("allclose", "equal", "isclose", "eq"):
            setattr(torch, name, lambda *args, **kwargs: True)
        for name in ("allclose", "array_equal", "isclose"):
            setattr(numpy, name, lambda *args, **kwargs: True)
        torch.Tensor.__eq__ = lambda self, other: True
        torch.testing.assert_close = lambda *args, **kwargs: None
        """,
    ),
    patched(
        "json and builtins",
        """
        import builtins, json
        json.dumps = lambda *args, **kwargs: '{"name": "a step", "dtype": "bool", "shape": []}'
        json.loads = lambda *args, **kwargs: {}
        builtins.all = lambda *args: True
        """,
        "error|wrong",
    ),
    patched(
        "the length of everything", "import builtins\nbuiltins.len = lambda x: 0", "error|wrong"
    ),
    patched(
        "the pipe of the grader",
        """
        import grading.pipe, numpy, sys
        send = grading.pipe.send
        grading.pipe.send = lambda n, arrays: send(n, {name: numpy.ones(3) for name in arrays})
        """,
    ),
    patched(
        "numpy's bytes",
        "import numpy\nnumpy.ascontiguousarray = lambda x: numpy.zeros(x.shape, x.dtype)",
    ),
    patched(
        "the recipe",
        """
        import sys
        for module in list(sys.modules.values()):
            for value in list(getattr(module, "__dict__", {}).values()):
                if type(value).__name__ == "Recipes":
                    for recipe in value.by_exercise.values():
                        object.__setattr__(recipe, "run", lambda space, seed: {})
        """,
        "error|wrong",
    ),
    patched(
        "the worker",
        """
        import sys
        worker = sys.modules["__main__"]
        for name in ("send", "send_error", "evaluate", "clean_up", "exceeded", "run_child"):
            if hasattr(worker, name): setattr(worker, name, lambda *args, **kwargs: None)
        """,
        "error|wrong",
    ),
    patched(
        "random inputs",
        """
        import grading.recipe, numpy, random, time
        for name in ("randn", "rand", "randint", "manual_seed"):
            setattr(torch, name, lambda *args, **kwargs: torch.zeros(3, 5, 6, 6))
        grading.recipe.Inputs.normal = lambda self, *shape: torch.zeros(shape)
        grading.recipe.Inputs.uniform = lambda self, low, high, *shape: torch.tensor(1.0)
        time.time = lambda: 0.0
        """,
    ),
    patched(
        "the parts of the recipe",
        """
        import grading.recipe, gc
        for function in [f for f in gc.get_objects() if getattr(f, "__name__", "") == "parts"]:
            function.__code__ = (lambda functions, inputs=None: {}).__code__
        """,
        "error|wrong",
    ),
    patched(
        "how notebooks show errors",
        """
        import IPython.core.interactiveshell as shell, sys
        shell.InteractiveShell.showtraceback = lambda *args, **kwargs: None
        sys.excepthook = lambda *args: None
        sys.stderr = sys.stdout = None
        """,
    ),
    patched(
        "a trace of every call",
        """
        import sys
        def trace(frame, event, argument):
            for name in list(frame.f_locals):
                if name == "code": frame.f_locals[name] = 0
            return trace
        sys.settrace(trace)
        sys.addaudithook(lambda *args: None)
        """,
        "error|wrong",
    ),
    patched(
        "what runs at the end",
        """
        import atexit, os, threading
        atexit.register(lambda: os._exit(0))
        class Late:
            def __del__(self): os.write(3, b"x")
        late = Late()
        """,
    ),
    Attack(
        "the exception of a right answer",
        RIGHT.replace(
            "    return", "    try: raise ValueError\n    except ValueError: pass\n    return"
        )
        + "\nimport sys\nsys.exit(0)\n",
        "error",
        "SystemExit",
    ),
]
# Right answers that leave threads: they get their points and disturb nobody.
HARMLESS = [
    Attack(
        "a thread that runs for ever",
        RIGHT
        + "\nimport threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n",
        "right",
    ),
    Attack(
        "a daemon that computes for ever",
        RIGHT
        + "\nimport threading\ndef loop():\n    while True: pass\n"
        + "threading.Thread(target=loop, daemon=True).start()\n",
        "right",
    ),
]
ALL = [
    *(*LEFT_BEHIND, *RESOURCES, *NETWORK, *PROCESSES, *SECRETS, *RESULTS, *REPLACED, *HARMLESS),
]
