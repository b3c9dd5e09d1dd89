"""`python main.py`: from a text to a clip, a mesh and a page; resumed, repeated and refused."""

import contextlib
import dataclasses
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
import trimesh

from course import notebooks
from course.files import LockTimeout, lock
from course.models.model import Model
from task_3_DreamFusion import command_line, runs
from task_3_DreamFusion import main as program
from task_3_DreamFusion.jobs import LOCK, OUTPUTS, folder_name
from task_3_DreamFusion.nerf import checkpoint, export, gui, index_page, memory, mesh
from task_3_DreamFusion.nerf.network_grid import GridField
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.renderer import Renderer
from task_3_DreamFusion.nerf.settings import (
    GuidanceOptions,
    OutputOptions,
    RunOptions,
    Settings,
    preset,
)
from task_3_DreamFusion.nerf.targets import TargetRays
from task_3_DreamFusion.nerf.utils import Trainer
from tests.publish.test_pages import ALLOWED, TEXTS, Parsed

HERE = notebooks.ROOT / "task_3_DreamFusion"


@pytest.fixture
def options(tiny_folder, tmp_path) -> list[str]:
    small = "--iters 3 --size 8 --rays 64 --max_steps 24 --frames 3 --video_size 32"
    small += " --save_every 2 --preview_every 0"
    return [
        "--text",
        "a car",
        "--model",
        str(tiny_folder),
        "--workspace",
        str(tmp_path / "run"),
        *small.split(),
    ]


@pytest.fixture
def small_mesh(monkeypatch):
    whole = mesh.extract_mesh
    monkeypatch.setattr(
        mesh,
        "extract_mesh",
        lambda *args, texture_size, **more: whole(
            *args[:3], 24, max_faces=500, texture_size=64, **more
        ),
    )


def test_from_text_to_files(options, tmp_path, capsys, small_mesh):
    assert program.main(options) == 0
    run = tmp_path / "run"
    printed = capsys.readouterr().out.split()
    for name in ("video.mp4", "mesh.glb", "mesh.obj", "mesh.html", "index.html"):
        assert (run / name).exists() and str(run / name) in printed
    clip = iio.imread(run / "video.mp4")
    assert clip.shape == (3, 32, 96, 3)
    assert len(trimesh.load(run / "mesh.glb", force="mesh").faces) > 50
    index = (run / "index.html").read_text()
    assert "a car" in index and "video.mp4" in index and "http" not in index

    # A second run does not write over it; --resume and --test go on from it.
    assert program.main(options) == 1 and "--resume" in capsys.readouterr().err
    assert program.main([*options, "--resume", "--iters", "4", "--no-save_mesh"]) == 0
    assert "continuing from step 3" in capsys.readouterr().out
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert program.main([*options, "--test", "--no-save_mesh"]) == 0
    assert "continuing from step 4" in capsys.readouterr().out
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--text", " "], "--text is empty: say what to generate"),
        (["--frames", "0"], "--frames must be from 1 to 10,000, got 0."),
        (["--elevation", "100"], "--elevation"),
        (["--iters", "-3"], "--iters must be from 1 to 10,000,000, got -3."),
        (["--seed", "-1"], "seed"),
        (["--t_range", "0.9", "0.1"], "--t_range must begin with its lower end"),
        (["--perp_neg", "-1"], "--perp_neg must be a number from 0 to 1,000, got -1."),
        (["--model", "no such model"], "no such model"),
        (["--resume"], "there is no checkpoint in"),
        (["--test"], "train first"),
        (["--ckpt", "nowhere"], "nowhere is no checkpoint"),
        (
            ["--workspace", "/dev/null/run"],
            "--workspace /dev/null/run cannot be written: Not a directory",
        ),
        (["--workspace", __file__], "test_main.py cannot be written: File exists"),
        (["--max_steps", "0"], "--max_steps must be from 1 to 10,000, got 0."),
        (["--batch_size", "-1"], "--batch_size must be from 1 to 1,024, got -1."),
        (["--save_every", "0"], "--save_every must be from 1 to 1,000,000,000, got 0."),
        (["--video_size", "-4"], "--video_size must be from 1 to 5,460, got -4."),
        (
            ["--lambda_opacity", "-1"],
            "--lambda_opacity must be a number from 0 to 1,000,000, got -1.",
        ),
        (["--lr", "nan"], "--lr must be a number from 1e-08 to 10, got nan."),
        (["--bound", "nan"], "--bound must be a number from 0.01 to 100, got nan."),
        (["--fade_in", "2"], "--fade_in must be a number from 0 to 1, got 2."),
        (
            ["--guidance_scale", "nan"],
            "--guidance_scale must be a number from -1,000 to 1,000, got nan.",
        ),
        (["--gui", "--gui_port", "0"], "--gui_port must be from 1 to 65,535, got 0."),
        (["--gui", "--test"], "--gui cannot be combined with --test"),
        (["--prompts", "list.txt"], "--prompts cannot be combined with --text"),
    ],
)
def test_an_invalid_request_is_refused_in_one_line(options, more, message, capsys):
    assert program.main([*options, *more]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


@pytest.fixture
def answer(capsys):
    """Runs main.py with these arguments: its exit status and the one line that it ends with."""

    def run(arguments: list[str]) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = program.main(arguments)
        except SystemExit as error:  # argparse
            status = error.code
        lines = capsys.readouterr().err.strip().splitlines()
        return status, lines[-1] if lines else ""

    return run


NUMERIC = {
    action.option_strings[0]: action
    for action in command_line.build_parser()._actions
    if action.type in (int, float)
}


@pytest.mark.parametrize("flag", NUMERIC)
def test_every_number_out_of_range_is_refused_by_the_name_of_its_option(
    options, tmp_path, answer, flag
):
    values = ["nan", "inf", "-inf", "1e400", "-1e400", "-1e30", "1e30", "x", "", "1" + "0" * 5000]
    values += [] if NUMERIC[flag].type is float else ["1.5", "-1", "1" + "0" * 40]
    for value in values:
        given = (
            [f"{flag}={value}"]
            if NUMERIC[flag].nargs is None
            else [flag, value.replace("-", "\uff0d"), value]
        )
        status, line = answer([*options, *given])
        assert status in (1, 2) and line.startswith("error: ") and flag in line, (value, line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "--rays 2000000000",
            "--rays must be from 1 to 1,000,000, got 2,000,000,000. So many are all pixels of",
        ),
        (
            "--size 20000",
            "--size must be from 1 to 2,048, got 20,000. The model sees images at its own size",
        ),
        (
            "--video_size 100000",
            "--video_size must be from 1 to 5,460, got 100,000. Three images stand side by side",
        ),
        (
            "--batch_size 1000000000",
            "--batch_size must be from 1 to 1,024, got 1,000,000,000. The denoiser sees all",
        ),
        (
            "--frames 1000000000",
            "--frames must be from 1 to 10,000, got 1,000,000,000. At 30 frames a second",
        ),
        (
            "--reuse 1000000000",
            "--reuse must be from 1 to 10,000, got 1,000,000,000. The targets stay as they are",
        ),
        (f"--keep {10**30}", "--keep must be from 1 to 100,000"),
        ("--max_steps 1000000000", "--max_steps must be from 1 to 10,000"),
        (
            "--iters 1000000000",
            "--iters must be from 1 to 10,000,000, got 1,000,000,000. At a tenth of a second",
        ),
    ],
)
def test_what_no_machine_can_do_is_refused_with_the_reason(
    options, tmp_path, answer, given, message
):
    status, line = answer([*options, *given.split()])
    assert status == 1 and f"error: {message}" in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--rays 1000000 --max_steps 4000 --reuse 100", "the rays of a step would take about"),
        (
            "--size 2048 --batch_size 64",
            "lower --batch_size (64), --size (2,048) or --max_steps (24)",
        ),
        ("--video_size 4096", "a frame of the clip would take about"),
        ("--frames 10000 --video_size 400", "lower --frames (10,000) or --video_size (400)"),
        ("--keep 100000 --size 256", "lower --keep (100,000) or --size (256)"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_the_model_is_loaded(
    options, answer, monkeypatch, given, message
):
    monkeypatch.setattr(memory, "total", lambda device: 16 * 2**30)
    monkeypatch.setattr(runs, "StableDiffusion", None)
    status, line = answer([*options, *given.split()])
    assert status == 1 and message in line and "this machine has 16 GiB" in line


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        (runs, "StableDiffusion", "loading the model: choose a smaller --model"),
        (
            Trainer,
            "train_step",
            "training: lower --batch_size or --max_steps, or start again with a smaller --size",
        ),
        (
            TargetRays,
            "from_targets",
            "learning from the targets: lower --rays, --reuse or --max_steps",
        ),
        (Trainer, "preview", "writing a preview: use --preview_every 0"),
        (export, "save_video", "writing the clip: lower --video_size or --frames"),
        (export, "save_mesh", "writing the mesh: use --no-save_mesh"),
        (runs, "find_model", "working: lower --batch_size, --size or --max_steps"),
    ],
)
def test_out_of_memory_ends_in_a_line_that_names_the_option(
    options, answer, monkeypatch, module, name, message
):
    monkeypatch.setattr(module, name, lambda *_, **__: torch.empty(2**48))  # as much as no CPU has
    status, line = answer([*options, *(["--preview_every", "2"] if name == "preview" else [])])
    assert status == 1 and line.startswith(f"error: out of memory while {message}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("-O2", "-O2 is an option of stable-dreamfusion; here use --backbone vanilla"),
        (
            "--w 64 --h 64",
            "--w is an option of stable-dreamfusion; here the training images are square",
        ),
        (
            "--h=64",
            "here the training images are square: use --size",
        ),
        (
            "--dmtet",
            "--dmtet is an option of stable-dreamfusion; here there is no second stage",
        ),
        ("-O --sd_version 2.1", "here use --model"),
        ("--hf_key stabilityai/stable-diffusion-2-1-base", "here use --model"),
        ("--perpneg", "here use --perp_neg"),
        ("--image a.png", "an object is generated from text alone"),
        (
            "--guidance IF",
            "use --model for the model, and --guidance_scale for how strongly it guides",
        ),
        ("--cuda_ray --fp16", "compiled kernels run without an option"),
        ("--tree", "unrecognized arguments: --tree"),
        ("--iters", "argument --iters: expected one argument"),
        ("--optim adamw", "argument --optim: invalid choice: 'adamw'"),
    ],
)
def test_options_of_stable_dreamfusion_are_answered_in_one_line(
    options, answer, capsys, given, message
):
    status, line = answer([*options, *given.split()])
    assert status == 2 and line.startswith("error: ") and message in line
    with contextlib.suppress(SystemExit):
        program.main([*options, *given.split()])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_option_of_this_program_is_taken_for_one_of_stable_dreamfusion():
    own = {
        flag for action in command_line.build_parser()._actions for flag in action.option_strings
    }
    assert own & set(command_line.ANSWERS) == set()
    named = set(re.findall(r"--[a-z]\w*", " ".join(command_line.ANSWERS.values())))
    assert named <= own


@pytest.mark.parametrize("byte", [b"\xff", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f"])
@pytest.mark.parametrize(
    "flag", ["--text", "--negative", "--scene", "--workspace", "--model", "--ckpt", "--prompts"]
)
def test_a_lone_byte_on_the_command_line(options, answer, flag, byte):
    status, line = answer([*options, flag, os.fsdecode(b"a " + byte + b" car")])
    assert status in (1, 2) and flag in line and "must be UTF-8, and character 3 of" in line


@pytest.mark.parametrize("flag", ["--workspace", "--ckpt", "--prompts", "--model"])
@pytest.mark.parametrize("value", ["", " ", "\t", "\n", "  \n "])
def test_an_empty_name_is_refused(options, answer, monkeypatch, tmp_path, flag, value):
    monkeypatch.chdir(tmp_path)
    status, line = answer([*options, flag, value])
    assert status == 2 and f"argument {flag}: must be a name, got an empty text" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["loop", "loop/run", "self", "file/run", "x" * 300, "y/" * 3000, "y/" * 2030]
)
def test_a_workspace_that_cannot_exist_is_refused(options, answer, monkeypatch, tmp_path, name):
    """Links in a circle, a file in the way, and names that are too long."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("other")
    Path("other").symlink_to("loop")
    Path("self").symlink_to("self")
    Path("file").touch()
    for more in ([], ["--resume"], ["--ckpt", name], ["--prompts", name]):
        base = options[2:] if more[:1] == ["--prompts"] else options
        status, line = answer([*base, "--workspace", name, "--no-save_mesh", *more])
        assert status in (1, 2) and line.startswith("error: "), more


def test_without_a_surface_there_is_still_a_clip(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "SURFACE_DENSITY", 1e6)
    assert program.main(options) == 0
    assert "no mesh: the field has no surface" in capsys.readouterr().err
    assert (tmp_path / "run" / "video.mp4").exists() and not (
        tmp_path / "run" / "mesh.glb"
    ).exists()


def test_a_cpu_has_defaults_of_its_own():
    cpu, gpu = preset(on_cpu=True, of_photos=False), preset(on_cpu=False, of_photos=False)
    assert gpu == {} and cpu["iters"] < Settings("a car").iters
    photos, both = preset(on_cpu=False, of_photos=True), preset(on_cpu=True, of_photos=True)
    assert photos["albedo_iter_ratio"] == 0.4 and photos["guidance_scale"] == 100
    assert both == photos | cpu and both["albedo_iter_ratio"] == 1.0  # light costs a CPU too much
    several = preset(on_cpu=True, of_photos=False, multiview=True)
    assert several["batch_size"] == 4 and several["perp_neg"] == several["widen"] == 0
    assert OUTPUTS.parts[-2:] == ("outputs", "task_3")
    assert folder_name("A Hamburger, please!") == "a_hamburger_please"
    long = "a very " * 20 + "red car"
    assert len(folder_name(long)) == 60 and folder_name(long) != folder_name(long + "t")
    assert folder_name("?") != ""


def test_every_setting_has_an_option_of_its_name():
    kinds = (Settings, GuidanceOptions, RunOptions, OutputOptions)
    names = [f.name for kind in kinds for f in dataclasses.fields(kind)]
    actions = command_line.build_parser()._actions[1:]  # the first is --help
    assert sorted(action.dest for action in actions) == sorted(names)
    assert all(f"--{action.dest}" in action.option_strings for action in actions)
    flags = "--text --negative -O --iters --lr --seed --workspace --ckpt --test --save_mesh"
    flags += " --backbone --frames --video_size --elevation --t_range --fade_in --widen --prompts"
    flags += " --gui --resume --deterministic --model"
    help = command_line.build_parser().format_help()
    assert [flag for flag in flags.split() if flag not in help] == []


def test_only_options_that_were_given_count_as_given():
    request = command_line.parse(["--text", "a car", "--size", "20", "-O"])
    assert request.given == {"text": "a car", "size": 20, "half": True}
    assert request.run == RunOptions() and request.output == OutputOptions()


def test_help_needs_no_pytorch():
    code = "import sys; from task_3_DreamFusion import main\n"
    code += "try: main.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_prompts_are_checked_and_embedded_once_and_a_checkpoint_is_read_once(options, monkeypatch):
    """So an unknown word is warned of once."""
    texts, checked, paths = [], [], []
    embed, load, check = runs.StableDiffusion.embed_text, checkpoint.load, Model.check_prompt
    monkeypatch.setattr(
        Model,
        "check_prompt",
        lambda self, text, *more: checked.append(text) or check(self, text, *more),
    )
    monkeypatch.setattr(
        runs.StableDiffusion,
        "embed_text",
        lambda self, text: texts.append(text) or embed(self, text),
    )
    monkeypatch.setattr(checkpoint, "load", lambda path: paths.append(path.name) or load(path))
    monkeypatch.setattr(runs, "check_exercise", lambda guidance: None)
    assert program.main([*options, "--no-save_mesh"]) == 0
    assert len(texts) == len(set(texts)) == 5 and paths == []
    assert checked == ["a car on a plain background", ""]
    assert program.main([*options, "--resume", "--iters", "4", "--no-save_mesh"]) == 0
    assert len(texts) == 10 and paths == ["000003.pt"]


# --- What could write over something, or is broken


def written(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def trained(options, tmp_path, monkeypatch) -> Path:
    """A workspace with a run of 3 steps."""
    assert (
        program.main([*options, "--no-save_mesh", "--lambda_tv", "0.5", "--guidance_scale", "9"])
        == 0
    )
    return tmp_path / "run"


def refused(capsys, arguments: list[str]) -> str:
    capsys.readouterr()
    assert program.main(arguments) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_resumed_run_keeps_its_settings(trained, capsys):
    before = json.loads((trained / "settings.json").read_text())
    assert before["lambda_tv"] == 0.5 and before["guidance"]["guidance_scale"] == 9
    here = ["--workspace", str(trained), "--no-save_mesh", "--frames", "2", "--video_size", "16"]
    assert program.main([*here, "--resume", "--iters", "4"]) == 0
    assert json.loads((trained / "settings.json").read_text()) == before | {"iters": 4}
    assert program.main([*here, "--test"]) == 0
    assert "continuing from step 4" in capsys.readouterr().out


def test_nothing_is_overwritten(options, trained, tmp_path, capsys):
    before, last = written(trained), str(trained / "checkpoints" / "000003.pt")
    assert "holds a run at step 3" in refused(capsys, options)
    assert "'a car', not for 'a bunny'" in refused(
        capsys, [*options, "--resume", "--text", "a bunny"]
    )
    assert "backbone 'grid', this run has 'vanilla'" in refused(
        capsys, [*options, "--resume", "--backbone", "vanilla"]
    )
    earlier = ["--ckpt", str(trained / "checkpoints" / "000002.pt")]
    assert "holds a run at step 3" in refused(capsys, [*options, *earlier])
    assert "--text is missing" in refused(capsys, ["--workspace", str(trained)])
    assert written(trained) == before
    # From an earlier one into a folder of its own, under another text.
    other = ["--workspace", str(tmp_path / "other"), "--text", "a bunny", "--no-save_mesh"]
    assert program.main([*options, *earlier, *other]) == 0 and written(trained) == before
    assert "holds a run at step 3" in refused(capsys, [*options, *other, "--ckpt", last])


@pytest.mark.parametrize("harm", ["cut off", "edited"])
def test_a_damaged_checkpoint_is_refused(options, trained, harm, capsys):
    file = trained / "checkpoints" / "000003.pt"
    data = file.read_bytes()
    middle = len(data) // 2
    file.write_bytes(data[:middle] + (b"" if harm == "cut off" else b"77" + data[middle + 2 :]))
    before = written(trained)
    for more in (
        ["--resume"],
        ["--test"],
        ["--ckpt", str(file), "--workspace", str(trained.parent / "new")],
    ):
        assert "000003.pt is cut off or was changed" in refused(capsys, [*options, *more])
    assert written(trained) == before and not (trained.parent / "new").exists()


def test_a_checkpoint_of_another_program_is_refused(options, tmp_path, capsys):
    path = checkpoint.save(tmp_path / "foreign", 5, {"x": torch.ones(3)})
    for more in (["--ckpt", str(path)], ["--ckpt", str(path), "--test"]):
        assert "something else than a run of task 3" in refused(capsys, [*options, *more])
    path.parent.rename(tmp_path / "checkpoints")
    assert "something else" in refused(capsys, ["--workspace", str(tmp_path), "--resume"])


@pytest.fixture
def panels(monkeypatch) -> list[str]:
    """The panels that live views showed last."""
    shown = []

    class Recorded(gui.LiveView):
        def __exit__(self, *error: object) -> None:
            shown.append(self.text.content)
            sent = self.server._websock_server._broadcast_buffer.message_from_id.values()
            shown.extend("Markdown" for each in sent if "Markdown" in type(each).__name__)
            super().__exit__(*error)

    monkeypatch.setattr(gui, "LiveView", Recorded)
    return shown


@pytest.mark.parametrize("text", TEXTS[:6])
def test_a_text_in_somebody_elses_checkpoint_is_shown_as_it_is(
    options, trained, tmp_path, small_mesh, panels, text
):
    """In the live view, the page of the mesh and the index."""
    step, state = checkpoint.load(trained / "checkpoints" / "000003.pt")
    state["settings"] |= {"text": text, "negative": text}
    foreign = checkpoint.save(tmp_path / "foreign", step, state)
    run = tmp_path / "new"
    with socket.socket() as probe:
        probe.bind((gui.HOST, 0))
        port = probe.getsockname()[1]
    given = ["--ckpt", str(foreign), "--workspace", str(run), "--iters", "4"]
    more = ["--frames", "1", "--video_size", "16", "--gui", "--gui_port", str(port)]
    assert program.main([*given, *more, "--model", options[3]]) == 0
    [panel] = panels
    pages = [panel, (run / "mesh.html").read_text(), (run / "index.html").read_text()]
    for parsed in map(Parsed, pages):
        assert text in parsed.text and parsed.tags <= ALLOWED
        assert not [name for name in parsed.names if name.startswith("on")]
        assert not [value for value in parsed.values if re.match(r"\s*javascript:", value)]
        assert not [script for script in parsed.scripts if "hacked" in script]


# --- Going on with other settings


def test_settings_given_on_resume_are_used_and_saved(trained, monkeypatch):
    trainers = []
    resume = Trainer.resume
    monkeypatch.setattr(
        Trainer, "resume", lambda self, saved: trainers.append(self) or resume(self, saved)
    )
    settings = {
        "iters": 4,
        "lr": 0.02,
        "seed": 7,
        "ema": 0.5,
        "keep": 2,
        "lambda_entropy": 3.0,
        "batch_size": 2,
        "negative": "red",
    }
    guidance = {"guidance_scale": 3.0, "perp_neg": 0.25, "t_max_end": 0.3, "t_window": 0.5}
    given = [
        word for name, value in (settings | guidance).items() for word in (f"--{name}", str(value))
    ]
    here = ["--workspace", str(trained), "--no-save_mesh", "--frames", "2", "--video_size", "16"]
    assert program.main([*here, "--resume", *given]) == 0
    [trainer] = trainers
    recorded = json.loads((trained / "settings.json").read_text())
    saved = checkpoint.read_run(trained / "checkpoints" / "000004.pt")
    for name, value in settings.items():
        assert (
            getattr(trainer.settings, name)
            == recorded[name]
            == getattr(saved.settings, name)
            == value
        )
    for name, value in guidance.items():
        assert (
            getattr(trainer.guidance.options, name)
            == recorded["guidance"][name]
            == getattr(saved.guidance, name)
            == value
        )
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.02, 0.2]
    assert trainer.targets.maxlen == 2 and trainer.generator.initial_seed() == 7


def test_a_model_with_a_relative_path_is_resumed_from_another_folder(
    options, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tiny_folder.parent)
    assert program.main([*options, "--no-save_mesh", "--model", tiny_folder.name]) == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["model"] == str(
        tiny_folder.resolve()
    )
    monkeypatch.chdir(tmp_path)
    assert program.main(["--workspace", "run", "--resume", "--no-save_mesh", "--frames", "1"]) == 0


# --- What belongs together


def test_a_mesh_of_an_earlier_step_is_neither_kept_nor_linked(
    options, tmp_path, small_mesh, monkeypatch
):
    run = tmp_path / "run"
    assert program.main(options) == 0
    assert program.main([*options, "--test", "--no-save_mesh"]) == 0  # of the same step: it stays
    assert (run / "mesh.glb").exists() and "mesh.html" in (run / "index.html").read_text()
    assert program.main([*options, "--resume", "--iters", "4", "--no-save_mesh"]) == 0
    assert list(run.glob("mesh*")) == [] and "mesh." not in (run / "index.html").read_text()
    assert program.main([*options, "--test"]) == 0
    assert len(list(run.glob("mesh*"))) == 5
    monkeypatch.setattr(export, "SURFACE_DENSITY", 1e6)  # the next field has no surface
    assert program.main([*options, "--resume", "--iters", "5"]) == 0
    assert list(run.glob("mesh*")) == [] and "mesh." not in (run / "index.html").read_text()


@pytest.mark.parametrize(
    ("files", "age", "stale"),
    [
        ("glb obj mtl png html", -1, "glb obj mtl png html"),
        ("glb obj mtl png html", 0, ""),  # of the last step
        ("glb obj mtl png html", 5, ""),
        ("glb", -1, "glb"),  # the others were removed, or the run was killed meanwhile
        ("obj mtl png html", -1, "obj mtl png html"),
        ("html", -1, "html"),
        ("", -1, ""),
    ],
)
def test_files_of_a_mesh_go_when_a_checkpoint_is_newer(tmp_path, files, age, stale):
    last = checkpoint.save(tmp_path / "checkpoints", 3, {"x": 1})
    os.utime(last, (1000, 1000))
    paths = {ending: tmp_path / f"mesh.{ending}" for ending in files.split()}
    for path in (*paths.values(), tmp_path / "video.mp4", tmp_path / "mesh.txt"):
        path.touch()
        os.utime(path, (1000 + age, 1000 + age))
    export.remove_stale_mesh(tmp_path)
    assert [ending for ending, path in paths.items() if not path.exists()] == stale.split()
    assert (tmp_path / "video.mp4").exists() and (tmp_path / "mesh.txt").exists()


def test_without_a_checkpoint_a_mesh_stays(tmp_path):
    (tmp_path / "mesh.glb").touch()
    export.remove_stale_mesh(tmp_path)
    assert (tmp_path / "mesh.glb").exists()


@pytest.mark.parametrize(
    ("first", "resumed", "half"),
    [
        ([], ["-O"], True),
        ([], ["--half"], True),
        (["-O"], [], True),
        (["-O"], ["-O"], True),
        ([], ["-O", "--lr", "0.02"], True),
        ([], [], False),
    ],
    ids=str,
)
def test_half_precision_on_resume_is_used_and_saved(
    options, tmp_path, first, resumed, half, monkeypatch, capsys
):
    trainers = []
    resume = Trainer.resume
    monkeypatch.setattr(
        Trainer, "resume", lambda self, saved: trainers.append(self) or resume(self, saved)
    )
    assert program.main([*options, "--no-save_mesh", *first]) == 0
    capsys.readouterr()
    here = ["--workspace", str(tmp_path / "run"), "--no-save_mesh", "--frames", "1"]
    assert program.main([*here, "--resume", "--iters", "4", *resumed]) == 0
    assert ("-O changes nothing without a GPU" in capsys.readouterr().out) == half
    [trainer] = trainers
    saved = checkpoint.read_run(tmp_path / "run" / "checkpoints" / "000004.pt")
    recorded = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert trainer.settings.half is recorded["half"] is saved.settings.half is half


def test_a_second_run_in_a_folder_is_refused(options, tmp_path, trained, capsys):
    (tmp_path / "new").mkdir()
    before = written(trained)
    for run, *more in (
        (trained, "--resume"),
        (trained, "--test"),
        (trained, "--resume", "--iters", "9"),
        (tmp_path / "new",),
        (tmp_path / "new", "--gui"),
    ):
        with lock(run / LOCK):
            line = refused(capsys, [*options, "--workspace", str(run), *more])
            assert (
                f"{run} is in use by another process: wait until it ends, or choose another" in line
            )
        assert not (run / ".lock").exists()
    assert written(trained) == before and list((tmp_path / "new").iterdir()) == []
    assert program.main([*options, "--resume", "--no-save_mesh"]) == 0


def test_a_run_that_another_process_has_begun_is_not_overwritten(
    options, tmp_path, capsys, monkeypatch
):
    """Between the look at the folder and its lock."""
    run = tmp_path / "run"
    prepare = runs.prepare

    def others_first(workspace: Path) -> None:
        prepare(workspace)
        checkpoint.save(workspace / "checkpoints", 9, {"x": 1})

    monkeypatch.setattr(runs, "prepare", others_first)
    assert "holds a run at step 9" in refused(capsys, options)
    assert [path.name for path in run.iterdir()] == ["checkpoints"]


def test_texts_without_letters_have_folders_of_their_own():
    """Emoji, signs and accents in two forms; what is written in letters keeps its plain name."""
    signs = [
        "🍔",
        "🍕",
        "🍔🍔",
        "?",
        "!",
        "—",
        "a car 🚗",
        "a car 🚕",
        "a car",
        "a “car”",
        "٪",
        "के",
        "का",
    ]
    folders = [folder_name(text) for text in signs]
    assert len(set(folders)) == len(signs)
    assert all(re.fullmatch(r"\w+", folder) and len(folder) <= 60 for folder in folders)
    assert folder_name("caf\u00e9") == folder_name("cafe\u0301") == "café"
    assert folder_name("A car, it's (red)!") == "a_car_it_s_red" and folder_name("東京") == "東京"
    assert folder_name("x" * 60) == "x" * 60 and len(folder_name("x" * 61)) == 60


@pytest.fixture
def restored_threads():
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


def deterministic(options: list[str], run: Path) -> list[str]:
    more = "--deterministic --no-save_mesh --size 32 --rays 2048 --frames 1"
    return [*options, "--workspace", str(run), *more.split()]


def test_deterministic_does_not_depend_on_the_number_of_threads(
    options, tmp_path, restored_threads
):
    states = set()
    for threads in (1, 2, 3, 4, 7):
        torch.set_num_threads(threads)
        run = tmp_path / str(threads)
        assert program.main(deterministic(options, run)) == 0
        states.add((run / "checkpoints" / "000003.pt").read_bytes())
    assert len(states) == 1
    assert "the CPU works on one thread" in command_line.build_parser().format_help().replace(
        "\n" + " " * 24, " "
    )


@pytest.mark.slow
def test_deterministic_does_not_depend_on_the_environment(options, tmp_path):
    """Variables that libraries read once, when they are loaded."""
    settings = [
        {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "3", "MKL_DYNAMIC": "FALSE"},
        {"OMP_SCHEDULE": "dynamic", "OMP_DYNAMIC": "TRUE", "OPENBLAS_NUM_THREADS": "2"},
    ]
    states = set()
    for number, variables in enumerate(settings):
        run = tmp_path / str(number)
        kept = {name: v for name, v in os.environ.items() if not name.endswith("_THREADS")}
        process = start(deterministic(options, run), env=kept | variables)
        assert process.wait(120) == 0, process.communicate()[1]
        states.add((run / "checkpoints" / "000003.pt").read_bytes())
    assert len(states) == 1


# --- Killed at any moment


def run_in_child(arguments: list[str], folder: Path, last: int | None = None) -> int:
    """Run main.py in a fork that ends as if killed before change number `last` below `folder`.

    Returns the exit status, and writes the number of changes to FOLDER/../changes.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    changes = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal changes
        writes = event == "open" and args[2] & os.O_CREAT
        if (writes or event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove")) and str(
            folder
        ) in str(args[0]):
            changes += 1
            if changes == last:
                os._exit(77)

    status = 99
    try:
        sys.addaudithook(watch)
        status = program.main(arguments)
        (folder.parent / "changes").write_text(str(changes))
    finally:
        os._exit(status)


def results_of(run: Path) -> dict[str, bytes]:
    """All files of a workspace but the logs, which hold times."""
    return {name: data for name, data in written(run).items() if not name.startswith("logs/")}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_anywhere_and_resumed_it_leaves_the_files_of_a_whole_run(
    options, tmp_path, small_mesh
):
    importlib.import_module("torch.utils.tensorboard")  # once here, and not in each child
    given = [
        *options,
        "--deterministic",
        "--iters",
        "5",
        "--preview_every",
        "2",
        "--save_every",
        "2",
    ]
    assert run_in_child([*given, "--workspace", str(tmp_path / "whole")], tmp_path / "whole") == 0
    expected = results_of(tmp_path / "whole")
    assert {
        "video.mp4",
        "mesh.glb",
        "mesh.html",
        "index.html",
        "settings.json",
        "previews/000004.png",
    } <= set(expected)
    assert {Path(name).name for name in expected if "checkpoints" in name} == {
        "000004.pt",
        "000005.pt",
    }
    changes = int((tmp_path / "changes").read_text())
    assert changes > 40
    for last in range(3, changes, changes // 6):
        run = tmp_path / str(last)
        here = [*given, "--workspace", str(run)]
        assert run_in_child(here, run, last) == 77
        resumes = ["--resume"] if checkpoint.latest(run / "checkpoints") else []
        assert run_in_child([*here, *resumes], run) == 0
        files = results_of(run)
        assert set(files) == set(expected), last
        assert [name for name in expected if files[name] != expected[name]] == [], last
        assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_is_reported_before_anything_is_written(options, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: usage._replace(free=5 * 2**20))
    assert "run is full: 5 MiB are free" in refused(capsys, options)
    assert list((tmp_path / "run").iterdir()) == []


# --- As a program of its own


def start(arguments: list[str], **more: object) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "main.py"), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs limits of a process")
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(options, trained):
    """A limit on the size of files stands for the full disk: the same error, at the same place."""
    import resource

    before = written(trained / "checkpoints")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    process = start([*options, "--resume", "--iters", "6", "--no-save_mesh"], preexec_fn=limit)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"error: the checkpoint \S+/000004\.pt cannot be written: File too large", err)
    assert "Traceback" not in err and written(trained / "checkpoints") == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
def test_sigterm_finishes_the_step_and_leaves_a_clip(options, tmp_path):
    process = start([*options, "--iters", "5000", "--save_every", "2", "--no-save_mesh"])
    wait_for(tmp_path / "run" / "checkpoints" / "000002.pt", process)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err
    step = int(re.search(r"stopped at step (\d+) of 5000: --resume continues", out)[1])
    assert checkpoint.step_of(checkpoint.latest(tmp_path / "run" / "checkpoints")) == step
    assert len(iio.imread(tmp_path / "run" / "video.mp4")) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a terminal")
def test_a_run_whose_terminal_is_closed_saves_and_leaves_a_clip(options, tmp_path):
    import pty

    child, keeper = pty.fork()  # the child leads a session on a terminal of its own
    given = [*options, "--iters", "5000", "--save_every", "2", "--no-save_mesh"]
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have had the tests ignore it
        os.execv(sys.executable, [sys.executable, str(HERE / "main.py"), *given])
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "000002.pt").exists():
        assert time.monotonic() < deadline
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(keeper, False)
            os.read(keeper, 10_000)  # or else the terminal would be full
        time.sleep(0.02)
    os.close(keeper)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    saved = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert checkpoint.load(saved)[0] == checkpoint.step_of(saved) >= 2
    assert (
        len(iio.imread(tmp_path / "run" / "video.mp4")) == 3
        and (tmp_path / "run" / "index.html").exists()
    )


def test_started_from_its_folder_it_hides_no_package():
    """transformers looks for a package `kernels`, and kernels.py lies beside main.py."""
    code = "import runpy, sys, importlib.util as u\nsys.argv[1:] = ['--help']\n"
    code += "try: runpy.run_path('main.py', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "found = u.find_spec('kernels')\nprint('FOUND', found and found.origin)"
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, env=outside, capture_output=True, text=True
    )
    assert "FOUND" in done.stdout and "task_3_DreamFusion" not in done.stdout.split("FOUND")[1], (
        done.stderr
    )


@pytest.mark.parametrize("folder", [HERE, HERE.parent])
def test_help_from_either_folder(folder):
    script = os.path.relpath(HERE / "main.py", folder)
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=folder, env=outside, capture_output=True, text=True
    )
    assert (
        done.returncode == 0 and "the guidance:" in done.stdout and "--lambda_orient" in done.stdout
    )


# --- The page over all runs


def write_settings(run: Path, **changes: object) -> None:
    """A settings.json as a run writes it, with changes."""
    run.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.asdict(Settings("a car")) | {"guidance": {}, "model": "pocket"} | changes
    (run / "settings.json").write_text(json.dumps(settings))


def test_page_of_many_runs(tmp_path):
    for name in ("one", "two"):
        write_settings(tmp_path / name, text=f"a <{name}>", negative="a cat & a dog")
    page = index_page.save_index(tmp_path).read_text()
    assert (
        "2 runs" in page
        and "a &lt;one&gt;" in page
        and "a cat &amp; a dog" in page
        and "<video" not in page
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "one", "two"]


FOREIGN = {
    "an editor's": b'{"editor.tabSize": 4, "files.exclude": {}}',
    "another program's": b'{"text": "a car", "iters": 3, "seed": 0, "backbone": "grid"}',
    "a list": b'["text", "guidance", "model", "half"]',
    "a list of lists": b"[[], {}]",
    "a number": b"7",
    "null": b"null",
    "empty": b"",
    "half-written": b'{"text": "a car", "guidan',
    "comments": b'// settings\n{"text": "a car"}',
    "UTF-16": '{"text": "a car"}'.encode("utf-16"),
    "not text": bytes(range(256)),
    "nested": b"[" * 100_000,
    "large": b" " * (index_page.MAX_SETTINGS + 1),
    "large number": b'{"text": ' + b"9" * 5000 + b"}",
}
ODD = [
    {"iters": "many"},
    {"iters": -1},
    {"seed": None},
    {"text": ["a car"]},
    {"text": "a \ud800 car"},
    {"lr": float("nan")},
    {"backbone": {}},
    {"negative": 3},
    {"grid_size": 33},
]


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_settings_file_is_ignored(tmp_path, content):
    write_settings(tmp_path / "b" / "mine", text="a tree")
    for place in ("a", "b", "b/mine/deep", "b/mine/previews"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "settings.json").write_bytes(content)
    page = index_page.save_index(tmp_path).read_text()
    assert "1 run<" in page and "a tree" in page


@pytest.mark.parametrize("changes", ODD, ids=map(str, ODD))
def test_invalid_settings_are_ignored(tmp_path, changes):
    write_settings(tmp_path / "mine", text="a tree")
    write_settings(tmp_path / "odd", **changes)
    assert "1 run<" in index_page.save_index(tmp_path).read_text()


def test_what_is_no_regular_settings_file_is_ignored(tmp_path):
    """Folders, pipes, links in a circle, unreadable files, and leftovers of a killed run."""
    write_settings(tmp_path / "mine", text="a tree")
    (tmp_path / "folder" / "settings.json").mkdir(parents=True)
    for name in ("pipe", "link", "closed", "circle"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / "settings.json")
    (tmp_path / "link" / "settings.json").symlink_to("settings.json")
    (tmp_path / "circle" / "again").symlink_to(tmp_path)
    (tmp_path / "closed" / "settings.json").touch(mode=0)
    for name in (".partial-settings.json-abc", ".partial-xyz", "mine/.partial-abc", ".hidden/run"):
        write_settings(tmp_path / name, text="a phantom")
    page = index_page.save_index(tmp_path).read_text()
    assert "1 run<" in page and "a tree" in page and "phantom" not in page


def test_a_run_beside_foreign_settings_comes_to_its_end(options, tmp_path, capsys):
    for number, content in enumerate(FOREIGN.values()):
        (tmp_path / "run" / str(number)).mkdir(parents=True)
        (tmp_path / "run" / str(number) / "settings.json").write_bytes(content)
    assert program.main([*options, "--no-save_mesh"]) == 0
    page = (tmp_path / "run" / "index.html").read_text()
    assert "1 run<" in page and "video.mp4" in page


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
def test_a_run_in_a_folder_whose_name_is_no_text(tmp_path):
    run = tmp_path / os.fsdecode(b"caf\xe9 & <b>")
    write_settings(run, text="a tree")
    (run / "video.mp4").touch()
    assert 'src="caf%E9%20%26%20%3Cb%3E/video.mp4"' in index_page.save_index(tmp_path).read_text()


def test_the_page_is_written_by_one_process_at_a_time(tmp_path, monkeypatch):
    (tmp_path / ".partial-index.html-dead").mkdir()
    (tmp_path / ".partial-settings.json-alive").mkdir()
    index_page.save_index(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".partial-settings.json-alive",
        "index.html",
    ]
    with lock(tmp_path / ".index.html.lock"):
        monkeypatch.setattr(index_page, "lock", lambda path, timeout: lock(path, 0.01))
        with pytest.raises(LockTimeout):
            index_page.save_index(tmp_path)


def test_normals_of_a_ball_look_outward(monkeypatch):
    renderer = Renderer(GridField(), max_steps=400, grid_size=32)
    monkeypatch.setattr(
        renderer.field, "_activate", lambda raw, x: (1000 * (0.5 - x.norm(dim=-1))).clamp(min=0)
    )
    camera = orbit(1, elevation=20.0, start=70.0)
    [image] = renderer.render_eval(camera, 64, 64)
    normals = export.normal_map(camera, image)
    assert normals.shape == (3, 64, 64) and (normals[:, image[3] == 0] == 1).all()
    [origins], [directions] = camera.rays(64, 64)
    places = origins + image[4][..., None] * directions
    solid = image[3] > 0.999
    assert solid.float().mean() > 0.2
    cosine = torch.cosine_similarity(2 * normals[:, solid].T - 1, places[solid], dim=-1)
    angles = torch.rad2deg(cosine.clamp(-1, 1).acos())
    assert angles.median() < 4 and angles.quantile(0.95) < 15  # at the rim a pixel is a long way


def test_an_outline_bends_no_surface():
    """A wall facing the camera, and a nearer one before its left half: all normals face it too."""
    camera = orbit(1, elevation=0.0)
    [_], [directions] = camera.rays(32, 32)
    depth = 2 / -directions[..., 2]  # the camera looks along -z
    depth[:, :16] /= 2
    image = torch.stack([*torch.zeros(3, 32, 32), torch.ones(32, 32), depth])
    normals = export.normal_map(camera, image)
    away = (normals - torch.tensor([0.5, 0.5, 1.0])[:, None, None]).norm(dim=0)
    assert away[3:-3, 3:-3].max() < 0.02  # at the image's border the softening is lopsided


def test_depth_is_bright_where_it_is_near():
    image = torch.zeros(5, 8, 8)
    image[3, :, :6], image[4, :, :3], image[4, :, 3:6] = 1, 2.2, 3.8
    shown = export.depth_map(image, radius=3.0).astype(int)
    assert shown.shape == (8, 8, 3) and (shown[:, 6:] == 255).all()
    assert shown[:, :3].sum() > shown[:, 3:6].sum()


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path):
    leftovers = [".partial-x", ".partial-settings.json-ab", ".partial-video.mp4-3x"]
    leftovers += [".partial-mesh.glb-_a", ".partial-mesh.html-b", ".partial-index.html-0"]
    leftovers += ["previews/.partial-000200.png-z", "checkpoints/.partial-000200.pt-a"]
    kept = ["video.mp4", "previews/000200.png", "checkpoints/000200.pt", "partial.txt"]
    kept += [".partials", "logs/x", "mine/.partial-x/file", ".clip"]
    for name in leftovers:
        (tmp_path / name / "inside").mkdir(parents=True)
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    runs.remove_leftovers(tmp_path)
    assert [name for name in leftovers if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    runs.remove_leftovers(tmp_path / "nowhere")


def test_several_views_need_their_model_and_as_many_views_in_a_step(options, capsys):
    given = [*options, "--prior", "multiview"]
    assert program.main([*given, "--batch_size", "6"]) == 1
    assert "batch_size must be a multiple of 4" in capsys.readouterr().err
    assert program.main([*given, "--batch_size", "4"]) == 1
    assert "no multi-view denoiser in" in capsys.readouterr().err
