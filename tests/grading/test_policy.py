"""Rules for answers: they refuse what is not one's own code, and no right answer."""

import importlib
import pkgutil

import pytest

from grading import official
from grading.policy import OWN_CODE, violation
from tests.grading import mutants

HARMLESS = [
    answer
    for info in pkgutil.iter_modules(mutants.__path__)
    for answer in importlib.import_module(f"tests.grading.mutants.{info.name}").HARMLESS
]
ALLOWED = {  # right but different, by exercise
    "1.2 (d)": "from torch import lerp\nguide = lerp",
    "1.2 (e)": "import math\nfrom functools import partial\nimport numpy as np\nx = np.sqrt(2)",
    "1.2 (g)": "def denoise(self):\n    return guide(*self.unet(1).sample.chunk(2), 3)",
    "1.2 (k)": "import os\nos.makedirs(os.path.join(OUTPUTS, 'own'), exist_ok=True)",
    "1.2 (l)": "import einops\nw = torch.einsum('nd,ld->nl', q, k).softmax(-1)",
    "1.4 (d)": "optimizer.step()\nprint(locals())",
    "1.4 (h)": "from course.diffusion import add_noise, velocity",
    "1.3 (a)": "from skimage.filters import gaussian\nimport cv2",
    "1.3 (i)": "from PIL import Image\nimage = Image.open('mine.jpg')\nimage.__class__.__name__",
    "2.1 (c)": "from __future__ import annotations\nimport itertools as it, collections.abc",
    "3 (c)": "noise = diffusion.predict_noise(x, output, alpha_bar, kind)",
    "3 (h)": "torch.backends.cudnn.deterministic = True\nrays = torch.meshgrid(x, y)",
    "video (a)": "class Timer:\n    def __enter__(self): return self",
    "0 (e)": "string.value = 3\nself.loss = 1\nJointDiffusion.descend = descend",
}
REFUSED = [  # exercise, answer, a part of the message
    ("1.2 (d)", "import subprocess", "`subprocess` is not needed"),
    ("1.2 (d)", "import gc\ngc.get_objects()", "`gc` is not needed"),
    ("1.2 (d)", "import importlib", "`importlib` is not needed"),
    ("1.2 (d)", "import ctypes as c", "`ctypes` is not needed"),
    ("1.2 (d)", "from sys import modules", "`sys` is not needed"),
    ("1.2 (d)", "import sys\nm = sys.modules", "`sys.modules` is not needed"),
    ("1.2 (d)", "import sys as s\ns._getframe()", "`sys._getframe` is not needed"),
    ("1.2 (d)", "import os\nos.system('ls')", "`os.system` is not needed"),
    ("1.2 (d)", "import os.path\nos.fork()", "`os.fork` is not needed"),
    ("1.2 (d)", "from os import environ, execv", "`os` is not needed"),
    ("1.2 (d)", "eval('1')", "`eval` is not allowed"),
    ("1.2 (d)", "run = exec\nrun('1')", "`exec` is not allowed"),
    ("1.2 (d)", "__import__('os')", "`__import__` is not allowed"),
    ("1.2 (d)", "guide.__globals__", "`.__globals__` is not allowed"),
    ("1.2 (d)", "().__class__.__base__.__subclasses__()", "is not allowed"),
    ("1.2 (d)", "getattr(guide, '__code__')", "`__code__` is not allowed"),
    ("1.2 (d)", "__builtins__['print']", "`__builtins__` is not allowed"),
    ("1.2 (d)", "def f():\n    yield\nf().gi_frame.f_back", "is not allowed"),
    ("1.2 (d)", "from course.checks import reference", "`course.checks` is not needed"),
    ("1.2 (d)", "from course import checks", "`course` is not needed"),
    ("1.2 (d)", "import course\ncourse.checks.common", "`course.checks.common` is not allowed"),
    ("1.2 (d)", "checks.guidance = print", "guidance` is not allowed"),
    ("1.2 (d)", "import grading", "`grading` is not needed"),
    ("1.2 (d)", "from . import x", "Relative imports"),
    ("1.2 (d)", "from course.diffusion import *", "by name"),
    ("1.2 (d)", "torch.allclose = lambda *a: True", "change a library: `torch.allclose`"),
    ("1.2 (d)", "import numpy as np\nnp.linalg.norm = 1", "change a library: `numpy.linalg.norm`"),
    ("1.2 (d)", "from course.diffusion import guide as g", "`course.diffusion.guide` does what"),
    ("1.2 (d)", "from course import diffusion as d\nd.guidance.guide", "code of your own"),
    ("1.2 (f)", "x = self.scheduler.step(v, t, x).prev_sample", "`self.scheduler.step` does what"),
    ("1.2 (f)", "diffusion.ddim_step(x, e, a, b)", "`course.diffusion.ddim_step` does what"),
    ("1.2 (g)", "from diffusers import StableDiffusionPipeline as P", "code of your own"),
    ("1.2 (l)", "torch.nn.functional.scaled_dot_product_attention(q, k, v)", "code of your own"),
    ("1.2 (c)", "scheduler.set_timesteps(5)", "code of your own"),
    ("1.3 (a)", "return conditions.canny(image)", "`course.images.conditions.canny` does"),
    ("1.3 (f)", "from course.metrics.control import edge_f1", "code of your own"),
    ("3 (l)", "from task_3_DreamFusion.nerf import views\nviews.view_weights(a, e)", "of your own"),
    ("3 (m)", "from course.diffusion import perp_neg", "code of your own"),
    ("1.2 (d)", "-" * 90_000 + "1", "nested too deeply"),
]


@pytest.mark.parametrize("exercise", official.answers())
def test_official_answers_are_allowed(exercise):
    assert violation(exercise, official.answers()[exercise]) == ""


@pytest.mark.parametrize("answer", HARMLESS, ids=str)
def test_right_but_different_answers_are_allowed(answer):
    assert violation(answer.exercise, answer.source) == ""


@pytest.mark.parametrize(("exercise", "answer"), ALLOWED.items())
def test_what_students_use_is_allowed(exercise, answer):
    assert violation(exercise, answer) == ""


@pytest.mark.parametrize(("exercise", "answer", "message"), REFUSED)
def test_what_is_not_ones_own_code_is_refused(exercise, answer, message):
    result = violation(exercise, answer)
    assert message in result and "\n" not in result


def test_what_cannot_run_breaks_no_rule():
    assert violation("1.2 (d)", "import gc (") == ""
    assert violation("1.2 (d)", "x = '\0'") == ""


def test_the_rules_name_exercises():
    assert set(OWN_CODE) <= set(official.answers())
