"""Attacks on what a student may not read, and by what one exercise leaves for another."""

from tests.grading.attacks.forms import DENIED, cell

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
            if type(item) not in (dict, list, tuple) or len(item) > 500: continue
            for value in list(values):
                text = value.decode("latin-1") if type(value) is bytes else value
                if type(text) is str and word in text and value is not word:
                    raise RuntimeError("SUCCEEDED")
        raise OSError("nothing")
        """,
        "nothing",
    ),
    cell(
        "the solution in its memory",
        """
        first, second = b"x_0 = (", b"windows - (1 - alpha_bar)"
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
        "left|ended|wrote too many",
        "error|stopped",
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
