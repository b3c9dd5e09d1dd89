"""Attacks that replace a part of the process in which they run, and then give a wrong answer."""

from tests.grading.attacks.forms import RIGHT, Attack, patched

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
