"""Lesson 1.3: its controlled loop beside diffusers' pipeline, training, and invalid requests.

On tiny networks: their ControlNets are noise, but have something to say.
"""

import ast
import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline
from PIL import Image

from course import notebooks
from course.checks import task_1_3 as checks
from course.diffusion import timesteps
from course.errors import CourseError
from course.images import ImageError, load_image
from course.metrics.control import edge_f1
from course.models import Model, RequestError, find_model, load_pipeline
from course.models.controlnet import Control, check_control, load_controlnet
from course.models.pipelines import encode_images, encode_prompts
from course.models.prompts import unknown_words
from tests.lessons.test_task_1_2 import ODD_COUNTS, SPACINGS, Gaussian, by_euler

PATH = notebooks.ROOT / "task_1_3_ControlNet.ipynb"
SAMPLES = notebooks.ROOT / "assets" / "samples"
PROMPT, NEGATIVE, GUIDANCE = "a red duck", "a tree", 4.0


@pytest.fixture(scope="module")
def v_folder(steered_folder, tmp_path_factory) -> Path:
    """The same model taken for one that predicts v, with timesteps as pocket has them."""
    weights = tmp_path_factory.mktemp("v") / "weights"
    shutil.copytree(steered_folder.parent, weights)
    file = weights / "stable-diffusion" / "scheduler" / "scheduler_config.json"
    settings = {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return weights / "stable-diffusion"


def on_model(folder: Path):
    """The lesson's own functions and classes, on a model."""
    lesson = notebooks.definitions(
        notebooks.read(PATH), {"STEPS": 2, "SEED": 2, "GUIDANCE_SCALE": GUIDANCE}
    )
    lesson.model = find_model(folder)
    lesson.pipe = load_pipeline(lesson.model)
    return lesson


@pytest.fixture(scope="module")
def lessons(steered_folder, v_folder):
    lessons = {"epsilon": on_model(steered_folder), "v_prediction": on_model(v_folder)}
    assert {kind: lesson.model.prediction_type for kind, lesson in lessons.items()} == {
        kind: kind for kind in lessons
    }
    return lessons


@pytest.fixture
def lesson(lessons):
    return lessons["epsilon"]


def make_control(lesson, kind: str = "canny", name: str = "house.png", **settings):
    """A control by the edges of a sample photograph, whatever the kind of its ControlNet."""
    photograph = load_image(SAMPLES / name, lesson.model.image_size)
    condition = lesson.to_condition(lesson.canny_edges(photograph, 20, 40))
    return Control(load_controlnet(kind, lesson.model), condition, **settings)


# --- The loop


@pytest.mark.parametrize(
    "settings",
    [
        [{}],
        [{"scale": 0.7, "end": 0.5}],
        [{"scale": 0.5, "start": 0.25}, {"scale": 1.3, "end": 0.75}],
    ],
    ids=["one", "one-for-a-time", "two"],
)
@pytest.mark.parametrize(
    ("kind", "count"), [("epsilon", 3), ("epsilon", 4), ("v_prediction", 4), ("v_prediction", 5)]
)
def test_the_loop_is_that_of_the_pipeline(lessons, kind, count, settings):
    """Where both agree: any count with leading timesteps, divisors of 1,000 with trailing ones."""
    lesson = lessons[kind]
    controls = [
        make_control(lesson, *of, **each)
        for of, each in zip([("canny", "house.png"), ("depth", "car.png")], settings, strict=False)
    ]
    networks = [each.network for each in controls]
    pipe = load_pipeline(lesson.model, networks if len(networks) > 1 else networks[0])
    assert isinstance(pipe, StableDiffusionControlNetPipeline) and isinstance(
        pipe.scheduler, DDIMScheduler
    )
    given = {
        "image": [each.condition for each in controls],
        "controlnet_conditioning_scale": [each.scale for each in controls],
        "control_guidance_start": [each.start for each in controls],
        "control_guidance_end": [each.end for each in controls],
    }
    if len(controls) == 1:
        given = {name: value for name, [value] in given.items()}
    expected = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=count,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="latent",
        **given,
    ).images
    ask = {"seed": 3, "steps": count, "negative_prompt": NEGATIVE}
    result = lesson.sample(PROMPT, *controls, **ask)
    assert (result - expected).abs().max() <= 1e-4
    assert (
        result - lesson.sample(PROMPT, **ask)
    ).abs().max() > 1e-2  # and control makes a difference


def test_without_control_it_is_the_loop_of_1_2(lessons):
    for lesson in lessons.values():
        expected = lesson.pipe(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=4,
            guidance_scale=GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(3),
            output_type="latent",
        ).images
        result = lesson.sample(PROMPT, seed=3, steps=4, negative_prompt=NEGATIVE)
        assert (result - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_each_step_goes_to_the_next_timestep_at_any_count(lessons, monkeypatch, spacing, kind):
    """Beside diffusers' Euler on the same timesteps, with a denoiser that knows the answer."""
    lesson = lessons[kind]
    scheduler = DDIMScheduler.from_config(
        lesson.pipe.scheduler.config, timestep_spacing=spacing, set_alpha_to_one=True
    )
    network, levels = Gaussian(scheduler), []
    monkeypatch.setattr(lesson, "pipe", SimpleNamespace(scheduler=scheduler, unet=network))
    monkeypatch.setattr(
        lesson, "guided_output", lambda unet, x, t, *_: levels.append(t) or unet(x, t).sample
    )
    start = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    for count in ODD_COUNTS:
        levels.clear()
        result = lesson.denoise(start, None, [], count, GUIDANCE)
        assert levels == timesteps(scheduler.config, count)
        assert (result - by_euler(scheduler, levels, start, network)).abs().max() <= 1e-3, count
        assert abs(result.std() - network.std) < 0.15, count  # neither black nor grain


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_check_of_the_loop_passes_whatever_the_spacing(lessons, monkeypatch, spacing, kind):
    lesson = lessons[kind]
    scheduler = DDIMScheduler.from_config(lesson.pipe.scheduler.config, timestep_spacing=spacing)
    monkeypatch.setattr(lesson.pipe, "scheduler", scheduler)
    checks.control_loop(lesson.sample, make_control(lesson), lesson.pipe, lesson.model)
    assert lesson.pipe.scheduler is scheduler


def test_a_silent_controlnet_changes_nothing(lesson):
    loud = make_control(lesson)
    silent = loud._replace(network=ControlNetModel.from_unet(lesson.pipe.unet).eval())
    free = lesson.sample(PROMPT)
    for control in (silent, loud._replace(scale=0.0), loud._replace(start=0.4, end=0.6)):
        assert torch.equal(lesson.sample(PROMPT, control), free)
    assert not torch.equal(lesson.sample(PROMPT, loud), free)


def test_one_seed_gives_one_image(lesson):
    control = make_control(lesson)
    first, again, other = (lesson.generate(PROMPT, control, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8, np.array, torch.tensor])
def test_whatever_behaves_like_an_integer_is_one(lesson, number):
    """Seed and number of steps."""
    plain = lesson.sample(PROMPT, seed=3, steps=2)
    assert torch.equal(plain, lesson.sample(PROMPT, seed=number(3), steps=number(2)))


@pytest.mark.parametrize("number", [np.float64, np.float32, np.array, torch.tensor, np.float16])
def test_the_numbers_of_a_control_are_of_any_kind(lesson, number):
    control = make_control(lesson, scale=0.5, end=0.5)
    other = control._replace(scale=number(0.5), start=number(0.0), end=number(0.5))
    assert torch.equal(
        lesson.sample(PROMPT, control),
        lesson.sample(PROMPT, other, guidance_scale=number(GUIDANCE)),
    )
    whole = check_control(control._replace(scale=np.int64(2), start=np.int64(0), end=np.int64(1)))
    assert [type(value) for value in whole[2:]] == [float] * 3


# --- Any image file


def gray(path):
    Image.open(SAMPLES / "house.png").convert("L").save(path)


def transparent(path):
    image = Image.open(SAMPLES / "house.png").convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path)


def deep(path):
    values = np.asarray(Image.open(SAMPLES / "house.png").convert("L"), np.uint16) * 257
    Image.fromarray(values).save(path)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(SAMPLES / "astronaut.png").save(path, exif=exif)


def tiny(path):
    Image.open(SAMPLES / "house.png").resize((20, 17)).save(path)


def huge(path):
    Image.open(SAMPLES / "house.png").resize((6000, 4000)).save(path.with_suffix(".jpg"))
    path.with_suffix(".jpg").rename(path)


@pytest.mark.parametrize(
    "make", [gray, transparent, deep, turned, tiny, huge], ids=lambda make: make.__name__
)
def test_any_image_file_steers(lesson, tmp_path, make):
    make(tmp_path / "mine.png")
    source = load_image(tmp_path / "mine.png", lesson.model.image_size)
    pages = [
        lesson.canny_edges(source, 20, 40),
        lesson.depth_image(source),
        lesson.normals_image(source),
    ]
    for kind, page in zip(("canny", "depth", "normals"), pages, strict=True):
        assert page.shape == (64, 64, 3) and 0 <= page.min() and page.max() <= 1
        control = make_control(lesson, kind)._replace(condition=lesson.to_condition(page))
        assert lesson.generate(PROMPT, control, steps=1).size == (64, 64)
    assert pages[0].any()


def test_an_image_of_another_shape_is_drawn_in_its_shape(lesson):
    wide = load_image(SAMPLES / "mountains.png", (96, 64))
    control = make_control(lesson)._replace(condition=lesson.to_condition(lesson.canny_edges(wide)))
    assert lesson.generate(PROMPT, control).size == (96, 64)


def test_invalid_requests_are_refused_before_sampling(lesson, tmp_path, monkeypatch):
    control = make_control(lesson)
    monkeypatch.setattr(lesson.pipe.unet, "forward", None)  # whoever begins to work fails otherwise
    narrow, small = (control._replace(condition=control.condition[..., cut:]) for cut in (3, 8))
    for controls, settings, message in [
        ([control], {"steps": 0}, "from 1 to 999, got 0"),
        ([control], {"steps": 2.5}, "from 1 to 999, got 2.5"),
        ([control], {"seed": 1.5}, "seed must be a whole number .* got 1.5"),
        ([control], {"seed": None}, "seed must be a whole number .* got None"),
        (
            [control],
            {"guidance_scale": float("nan")},
            "guidance_scale must be a number, got nan",
        ),
        ([control], {"guidance_scale": "7"}, "guidance_scale must be a number, got '7'"),
        ([control._replace(scale=float("nan"))], {}, "scale must be a number, got nan"),
        ([control._replace(scale="loud")], {}, "scale must be a number, got 'loud'"),
        ([control._replace(scale=None)], {}, "scale must be a number, got None"),
        ([control._replace(start=-0.1)], {}, "start must be a number from 0 to 1, got -0.1"),
        ([control._replace(end=1.1)], {}, "end must be a number from 0 to 1, got 1.1"),
        ([narrow], {}, "width must be a multiple of 8 .* got 61. The nearest is 64"),
        ([control, small], {}, "different sizes, 64 x 64 and 56 x 64"),
        ([control._replace(condition=control.condition * 2 - 1)], {}, "got -1 to 1"),
        ([control._replace(condition=control.condition[0])], {}, r"got \(3, 64, 64\)"),
    ]:
        with pytest.raises(RequestError, match=message):
            lesson.generate(PROMPT, *controls, **settings)
    for prompt in (7, ["a duck", "a car"]):
        with pytest.raises(RequestError, match="A prompt must be text, got"):
            lesson.generate(prompt, control)
    (tmp_path / "letter.png").write_text("hello")
    with pytest.raises(ImageError, match="letter.png is not an? "):
        load_image(tmp_path / "letter.png", lesson.model.image_size)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["unet", "vae", "controlnet"])
def test_weights_that_are_not_finite_are_an_error(lesson, monkeypatch, part, value):
    control = make_control(lesson)
    network = copy.deepcopy(control.network if part == "controlnet" else getattr(lesson.pipe, part))
    weights = [
        weight
        for name, weight in network.named_parameters()
        if "encoder." not in name or part != "vae"
    ]
    with torch.no_grad():
        weights[-1].view(-1)[0] = value
    if part == "controlnet":
        control = control._replace(network=network)
    else:
        monkeypatch.setattr(lesson.pipe, part, network)
    message = {"vae": "The decoded image"}.get(part, r"The latents after step 1 of 2 \(t = 501\)")
    with pytest.raises(
        CourseError, match=f"^{message} must be finite, but .* download or save it again"
    ):
        lesson.generate(PROMPT, control)


@pytest.mark.parametrize("place", [1, 2, 5])
def test_the_step_that_is_not_finite_is_named(lesson, monkeypatch, place):
    seen, guided_output = [], lesson.guided_output

    def broken(unet, x, t, *others):
        seen.append(t)
        return guided_output(unet, x, t, *others) * (float("nan") if len(seen) == place else 1.0)

    monkeypatch.setattr(lesson, "guided_output", broken)
    with pytest.raises(
        CourseError, match=rf"after step {place} of 5 \(t = .*but 256 of 256 values"
    ):
        lesson.generate(PROMPT, steps=5)
    assert len(seen) == place


def test_an_empty_prompt_and_a_long_one_are_valid(lesson):
    assert lesson.generate("", make_control(lesson)).size == (64, 64)
    with pytest.warns(match="Cut from its end"):
        lesson.generate("duck " * 100, make_control(lesson), steps=1)


# --- Training


def training_set(lesson):
    """Latents, edges and text embeddings of two samples, as the lesson computes them."""
    names = ("house.png", "car.png")
    images = [load_image(SAMPLES / name, lesson.model.image_size) for name in names]
    edges = [lesson.to_condition(lesson.canny_edges(image)) for image in images]
    texts = encode_prompts(lesson.pipe, lesson.model, "a duck")
    return encode_images(lesson.pipe, images), torch.cat(edges).float(), texts.float()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_training_begins_at_the_denoiser_and_reaches_the_copy_in_the_second_step(lessons, kind):
    lesson = lessons[kind]
    torch.manual_seed(0)
    own = ControlNetModel.from_unet(lesson.pipe.unet)
    before = {name: value.clone() for name, value in lesson.pipe.unet.state_dict().items()}
    rows = lesson.train(own, training_set(lesson), 4)
    losses, outer, inner, size = np.array(rows).T
    assert np.isfinite(losses).all() and (losses > 0).all()
    assert inner[0] == 0 and (inner[1:] > 0).all() and (outer > 0).all()
    assert size[0] == 0 and (np.diff(size) > 0).all()
    assert all(
        torch.equal(value, before[name]) for name, value in lesson.pipe.unet.state_dict().items()
    )


def test_a_silent_controlnets_loss_is_the_denoisers(lesson):
    latents, noise = torch.randn(2, 2, 4, 8, 8)
    texts = encode_prompts(lesson.pipe, lesson.model, PROMPT)
    own = ControlNetModel.from_unet(lesson.pipe.unet)
    t = torch.tensor([300, 700])
    result = lesson.control_loss(own, latents, torch.rand(2, 3, 64, 64), texts, t, noise)
    noisy = lesson.pipe.scheduler.add_noise(latents, noise, t)
    with torch.no_grad():
        expected = (lesson.pipe.unet(noisy, t, texts).sample - noise).square().mean()
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)


def test_training_learns_where_control_is_easy(lesson):
    """In a hundred steps on one image and its condition the loss falls, by the ControlNet alone."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    condition, texts, t = (
        torch.rand(2, 3, 64, 64, generator=generator),
        encode_prompts(lesson.pipe, lesson.model, ""),
        torch.tensor([300, 700]),
    )
    torch.manual_seed(0)
    own = ControlNetModel.from_unet(lesson.pipe.unet)
    optimizer = torch.optim.AdamW(own.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        losses.append(lesson.control_loss(own, latents, condition, texts, t, noise))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]


# --- The whole


def test_in_half_precision_as_large_models_run_on_a_gpu(steered_folder, monkeypatch):
    """On a CPU bfloat16 stands in for float16."""
    monkeypatch.setattr(Model, "dtype", property(lambda model: torch.bfloat16))
    lesson = on_model(steered_folder)
    control = make_control(lesson)
    assert (
        lesson.pipe.unet.dtype == control.network.dtype == control.condition.dtype == torch.bfloat16
    )
    assert lesson.sample(PROMPT, control).isfinite().all()
    assert lesson.generate(PROMPT, control).size == (64, 64)
    checks.residuals(lesson.control_residuals, control, lesson.pipe, lesson.model)
    checks.control_loss(lesson.control_loss, control, lesson.pipe, lesson.model)
    own = ControlNetModel.from_unet(lesson.pipe.unet).float()
    rows = lesson.train(own, training_set(lesson), 3)
    assert np.isfinite(rows).all() and rows[0][2] == 0 and rows[1][2] > 0


def test_the_metric_of_the_lesson_is_that_of_the_course(lesson):
    generator = np.random.default_rng(0)
    for share in (0.01, 0.1, 0.5):
        maps = (generator.random((2, 40, 30, 1)) < share).repeat(3, axis=3).astype(float)
        for within in (0, 1, 2, 3):
            expected = edge_f1(maps[0, ..., 0], maps[1, ..., 0], within)
            assert lesson.edge_f1(*maps, within) == pytest.approx(expected)


def test_the_model_knows_every_word_of_the_prompts():
    vocabulary = find_model("pocket").vocabulary
    cells = [cell.source for cell in notebooks.read(PATH).cells if cell.cell_type == "code"]
    nodes = [node for source in cells for node in ast.walk(ast.parse(source))]
    titles = [key for node in nodes if isinstance(node, ast.Dict) for key in node.keys]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and node not in titles]
    prompts = [
        text
        for text in texts
        if isinstance(text, str) and text.startswith(("a ", "an ")) and "." not in text
    ]
    assert len(prompts) >= 7
    assert [word for prompt in prompts for word in unknown_words(prompt, vocabulary)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds", [["canny", "depth", "normals", "scribble"], ["canny", "depth"]], ids=len
)
@pytest.mark.weekly
def test_runs_on_a_model_from_a_folder(kinds, steered_folder, tmp_path):
    """With all kinds, and with those that Stable Diffusion 2.1 has."""
    shutil.copytree(steered_folder.parent, tmp_path / "weights")
    for kind in {"canny", "depth", "normals", "scribble"} - {*kinds}:
        shutil.rmtree(tmp_path / "weights" / "controlnet" / kind)
    parameters = {"STEPS": 2, "TRAINING_STEPS": 2, "OUTPUTS": str(tmp_path / "outputs")}
    folder = str(tmp_path / "weights" / "stable-diffusion")
    done = notebooks.execute(notebooks.read(PATH), parameters, {"COURSE_MODEL": folder})
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert text.count("✓") == 13
    assert f"ControlNets for {', '.join(kinds)}" in text
    assert "In the first step the gradient of the copied encoder is 0." in text
    for name in ("canny", "depth", "other"):
        assert (tmp_path / "outputs" / f"mine_{name}.png").exists()
    assert (
        sum("image/png" in o.get("data", {}) or "image/jpeg" in o.get("data", {}) for o in outputs)
        == 17
    )
