"""Attacks by what comes back: forged messages, odd values and errors."""

from tests.grading.attacks.forms import Attack, cell, returned

RESULTS = [
    cell(
        "results of another exercise",
        """
        import json, os
        head = {"exercise": "2.1 (2)", "stopped": "", "code": 0, "seconds": 0, "memory": 0}
        head["size"] = 0
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
            try: pipe.send(n, {"a step": np.zeros((5, 6, 6, 6)), "the last step": np.ones(3)})
            except OSError: pass
        os._exit(0)
        """,
        "relative difference|the shape is",
        "wrong",
    ),
    cell(
        "values of enormous shapes",
        """
        import os
        for n in range(3, 99):
            for shape in ("[0, 9223372036854775807, 9223372036854775807]", "[1e400]",
                          "[0, " + "9" * 400 + "]"):
                header = f'{{"name": "{shape[:9]}", "dtype": "bool", "shape": {shape}}}\\n'
                try: os.write(n, header.encode())
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
            header = b'{"name": "\\\\ud800\\\\u0000<b>", "dtype": "bool", "shape": [0]}\\n'
            try: os.write(n, header * 2)
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
            try: pipe.send(n, {"!error": np.zeros(1_000_000, np.uint8)})
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
