"""What an answer may not do, by its syntax tree: import what it does not need, reach behind the
objects it has, or call the library's own function for the exercise instead of being one.

This is a rule of the course, not a protection: what code can do is limited by the sandbox.
"""

import ast
import fnmatch
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from course.notebooks import code_cells, lesson_paths, read
from grading.fences import cells_with_exercise, exercise_in
from grading.release import fenced_modules

# Modules of Python that an answer may import.
STANDARD = frozenset(
    "__future__ abc array base64 bisect cmath collections colorsys contextlib copy csv dataclasses "
    "datetime decimal enum fractions functools glob hashlib heapq io itertools json logging math "
    "numbers operator os pathlib pprint random re shutil statistics string sys tempfile textwrap "
    "time types typing typing_extensions unicodedata uuid warnings".split()
)
PACKAGES = frozenset(
    "IPython PIL accelerate cv2 diffusers einops huggingface_hub imageio imageio_ffmpeg matplotlib "
    "numpy safetensors scipy skimage torch torchvision tqdm transformers".split()
)
# Those of the course that its lessons use; course.checks has solutions.
COURSE = frozenset(
    "arguments diffusion errors figures files images metrics models plane setup speed training "
    "views".split()
)
# Of `os` and `sys`, what has to do with files, numbers and output.
PARTS = {
    "os": frozenset(
        "PathLike cpu_count curdir environ fspath getcwd linesep listdir makedirs mkdir path "
        "remove rename replace rmdir scandir sep unlink walk".split()
    ),
    "sys": frozenset(
        "byteorder float_info float_repr_style maxsize platform stderr stdout version "
        "version_info".split()
    ),
}
CALLS = frozenset("__import__ breakpoint compile eval exec exit globals input quit".split())
FRAMES = frozenset(
    "ag_frame cr_frame f_back f_builtins f_code f_globals f_locals gi_frame tb_frame tb_next "
    "cell_contents".split()
)
DUNDERS = frozenset(  # attributes that programs use; all others reach behind an object
    "__class__ __doc__ __name__ __qualname__ __version__ __init__ __len__ __call__ __getitem__ "
    "__setitem__ __iter__ __next__ __enter__ __exit__ __repr__ __str__ __eq__ __hash__ __add__ "
    "__mul__ __sub__ __matmul__ __post_init__ __new__ __setattr__ __getattr__ __contains__".split()
)
PIPELINES = ("diffusers.*Pipeline*", "course.models.load_pipeline", "*.load_pipeline")
SCHEDULERS = ("diffusers.*Scheduler*", "course.models.schedulers.*")
# The library's own function for an exercise, as patterns of dotted names. A name that is not
# imported, such as `self`, is kept: "*.step" is the method `step` of any object.
OWN_CODE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "0 (a)": (*SCHEDULERS, "course.diffusion.*alpha_bar_at"),
        "0 (b)": ("course.diffusion.*add_noise", "*.add_noise"),
        "0 (g)": (*SCHEDULERS, "*.step"),
        "0 (h)": (*SCHEDULERS, "*.step", "course.diffusion.*ddim_step"),
        "0 (k)": ("course.diffusion.*guide", "course.diffusion.*perp_neg"),
        "0 (l)": ("course.diffusion.*velocity", "*.get_velocity"),
        "0 (m)": ("course.diffusion.*predict_noise", "course.diffusion.*predict_x0_and_noise"),
        "1.1 (a)": ("course.models.*load_pipeline",),
        "1.1 (b)": ("course.models.pipelines.starting_noise",),
        "1.2 (b)": ("course.models.pipelines.encode_prompts", "*.encode_prompt"),
        "1.2 (c)": ("course.diffusion.*timesteps", "*.set_timesteps"),
        "1.2 (d)": ("course.diffusion.*guide", "course.diffusion.*perp_neg"),
        "1.2 (e)": ("course.diffusion.*predict_*", "*.step"),
        "1.2 (f)": ("course.diffusion.*ddim_step", *SCHEDULERS, "*.step"),
        "1.2 (g)": ("*.step", *PIPELINES),
        "1.2 (h)": ("course.models.pipelines.decode_latents",),
        "1.2 (j)": PIPELINES,
        "1.2 (l)": (
            *("course.diffusion.*attention", "*.scaled_dot_product_attention"),
            "torch.nn.MultiheadAttention",
        ),
        "1.2 (n)": ("course.diffusion.*ddim_inversion_step", "diffusers.*Inverse*", "*.step"),
        "1.2 challenge 1": PIPELINES,
        "1.2 challenge 2": PIPELINES,
        "1.2 challenge 3": (*SCHEDULERS, *PIPELINES, "*.step"),
        "1.3 (a)": ("course.images.conditions.canny*",),
        "1.3 (b)": ("course.images.conditions.to_control",),
        "1.3 (c)": ("diffusers.*MultiControlNet*",),
        "1.3 (d)": PIPELINES,
        "1.3 (f)": ("course.metrics.*edge_f1",),
        "1.3 (g)": ("diffusers.*zero_module",),
        "2.1 (1)": ("course.diffusion.*ddim_step", "*.step"),
        "2.2 (g)": ("course.metrics.*intra_distance", "course.metrics.*measure_panorama"),
        "3 (a)": ("course.models.pipelines.encode_prompts", "*.embed_text"),
        "3 (b)": ("*.sample_timesteps",),
        "3 (c)": ("task_3_DreamFusion.*",),
        "3 (d)": ("task_3_DreamFusion.*",),
        "3 (e)": ("task_3_DreamFusion.sds_2d.*",),
        "3 (h)": ("task_3_DreamFusion.nerf.provider.*", "*.rays"),
        "3 (i)": ("task_3_DreamFusion.raymarching.*",),
        "3 (j)": ("task_3_DreamFusion.raymarching.*",),
        "3 (k)": ("task_3_DreamFusion.nerf.renderer.Renderer", "task_3_DreamFusion.raymarching.*"),
        "3 (l)": ("task_3_DreamFusion.nerf.views.view_weights", "*.view_weights"),
        "3 (m)": ("course.diffusion.*perp_neg",),
    }
)


def violation(exercise: str, answer: str) -> str:
    """Return which rule an answer breaks and what to do instead, "" if it breaks none.

    An answer that is no valid Python breaks none: it cannot run.
    """
    try:
        tree = ast.parse(answer)
    except (SyntaxError, ValueError):
        return ""
    except (RecursionError, MemoryError):
        return "The answer is nested too deeply to be read."
    nodes = list(ast.walk(tree))
    aliases = {**_lesson_aliases(exercise), **_aliases(nodes)}
    rules = (_import_rule, _name_rule, _attribute_rule, _library_rule)
    messages = (message for node in nodes for rule in rules if (message := rule(node, aliases)))
    return next(messages, "") or _own_code_rule(exercise, nodes, aliases)


def _import_rule(node: ast.AST, _: Mapping[str, str]) -> str:
    """Return what is wrong with an import."""
    if isinstance(node, ast.ImportFrom) and node.level:
        return "Relative imports do not work in a notebook: name the whole module."
    for module, name in _imports(node):
        if not _is_allowed(module, name):
            return (
                f"`{module}` is not needed for the exercises and not allowed in an answer. Allowed "
                "are numpy, torch, what the lesson imports, and modules such as math and itertools."
            )
        if name == "*" and module.split(".")[0] not in STANDARD:
            return f"Import what you need by name, not `from {module} import *`."
    return ""


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name ("" for the module itself) of an import."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, ""
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield node.module or "", alias.name


def _is_allowed(module: str, name: str) -> bool:
    package, *rest = [*module.split("."), name]
    if package in PARTS and rest[0]:
        return rest[0] in PARTS[package]
    if package == "course":
        return rest[0] in COURSE or (not rest[0] and name == "")
    return package in STANDARD | PACKAGES | {"task_3_DreamFusion"}


def _name_rule(node: ast.AST, _: Mapping[str, str]) -> str:
    """Return what is wrong with a name or a text that names an attribute."""
    if isinstance(node, ast.Name):
        if node.id in CALLS:
            return f"`{node.id}` is not allowed in an answer: write the code itself."
        if _is_hidden(node.id) and node.id != "__name__":
            return f"`{node.id}` is not allowed in an answer."
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_hidden(node.value):
        return f"`{node.value}` is not allowed in an answer."
    return ""


def _attribute_rule(node: ast.AST, aliases: Mapping[str, str]) -> str:
    """Return what is wrong with an attribute."""
    if not isinstance(node, ast.Attribute):
        return ""
    if _is_hidden(node.attr) or node.attr in FRAMES:
        return f"`.{node.attr}` is not allowed in an answer."
    name = _dotted(node, aliases)
    module, *rest = name.split(".")
    if module in PARTS and rest and rest[0] not in PARTS[module]:
        return f"`{name}` is not needed for the exercises and not allowed in an answer."
    if name.startswith("course.") and not name.startswith(tuple(f"course.{m}" for m in COURSE)):
        return f"`{name}` is not allowed in an answer."
    return ""


def _is_hidden(name: str) -> bool:
    is_dunder = name.startswith("__") and name.endswith("__") and len(name) > 4
    return is_dunder and name.isidentifier() and name not in DUNDERS | {"__main__"}


def _library_rule(node: ast.AST, aliases: Mapping[str, str]) -> str:
    """Return what is wrong with an assignment: libraries stay as they are."""
    if not isinstance(node, ast.Attribute) or isinstance(node.ctx, ast.Load):
        return ""
    base: ast.AST = node
    while isinstance(base, ast.Attribute):
        base = base.value
    name = _dotted(node, aliases)
    is_library = isinstance(base, ast.Name) and base.id in aliases
    if is_library and not name.startswith("torch.backends."):
        return f"An answer may not change a library: `{name}` is assigned."
    return ""


def _own_code_rule(exercise: str, nodes: list[ast.AST], aliases: Mapping[str, str]) -> str:
    """Return which function of a library an answer uses in the place of code of its own."""
    patterns = OWN_CODE.get(exercise, ())
    names = [_dotted(node, aliases) for node in nodes if isinstance(node, ast.Attribute | ast.Name)]
    names += [f"{module}.{name}" for node in nodes for module, name in _imports(node) if name]
    for name in names:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return f"`{name}` does what the exercise asks for: write code of your own."
    return ""


def _dotted(node: ast.AST, aliases: Mapping[str, str]) -> str:
    """Return the dotted name of an attribute, such as "course.diffusion.guide".

    Imported names are written out; what is not a name, such as a call, is left out.
    """
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    base = aliases.get(node.id, node.id) if isinstance(node, ast.Name) else "()"
    return ".".join([base, *reversed(parts)])


def _aliases(nodes: list[ast.AST]) -> dict[str, str]:
    """Return what the imported names stand for: {"F": "torch.nn.functional"}."""
    aliases = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                aliases[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return aliases


@cache
def _all_aliases() -> Mapping[str, Mapping[str, str]]:
    """Return the imported names of the lesson or module of each exercise."""
    result = {}
    for path in lesson_paths():
        notebook = read(path)
        trees = [ast.parse(cell.source) for cell in code_cells(notebook)]
        aliases = _aliases([node for tree in trees for node in ast.walk(tree)])
        for _, exercise in cells_with_exercise(notebook):
            if exercise:
                result[exercise] = aliases
    for path in fenced_modules():
        source = path.read_text("utf-8")
        aliases = _aliases(list(ast.walk(ast.parse(source))))
        for part in source.split("# TODO ")[1:]:
            if exercise := exercise_in(f"TODO {part}"):
                result[exercise] = aliases
    return result


def _lesson_aliases(exercise: str) -> Mapping[str, str]:
    return _all_aliases().get(exercise, {})
