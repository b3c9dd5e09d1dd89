"""`python main.py`: from a text to a clip, a mesh and a page; on, again and not at all."""

import os
import subprocess
import sys

import imageio.v3 as iio
import pytest
import torch
import trimesh

from course import notebooks
from task_3_DreamFusion import main as program
from task_3_DreamFusion.nerf import results
from task_3_DreamFusion.nerf.results import save_index

HERE = notebooks.ROOT / "task_3_DreamFusion"


@pytest.fixture
def options(tiny_folder, tmp_path) -> list[str]:
    small = "--iters 3 --size 8 --max_steps 24 --frames 3 --video_size 32 --save_every 2 --preview_every 0"
    return ["--text", "a car", "--model", str(tiny_folder), "--workspace", str(tmp_path / "run"), *small.split()]


@pytest.fixture
def small_mesh(monkeypatch):
    whole = results.extract
    monkeypatch.setattr(
        results, "extract", lambda *args, texture, **more: whole(*args[:3], 24, faces=500, texture=64, **more)
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
    assert "goes on from step 3" in capsys.readouterr().out
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert program.main([*options, "--test", "--no-save_mesh"]) == 0
    assert "goes on from step 4" in capsys.readouterr().out
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--text", " "], "the text is empty"),
        (["--frames", "0"], "--frames"),
        (["--elevation", "100"], "--elevation"),
        (["--iters", "-3"], "iters is at least 1, not -3"),
        (["--seed", "-1"], "seed"),
        (["--t_range", "0.9", "0.1"], "t_range"),
        (["--perp_neg", "-1"], "perp_neg"),
        (["--model", "no such model"], "no such model"),
        (["--resume"], "there is no checkpoint in"),
        (["--test"], "train first"),
        (["--ckpt", "nowhere"], "nowhere is no checkpoint"),
        (["--workspace", "/dev/null/run"], "/dev/null/run cannot be made"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(options, more, said, capsys):
    assert program.main([*options, *more]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and said in error


def test_without_a_surface_there_is_still_a_clip(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(results, "LEVEL", 1e6)
    assert program.main(options) == 0
    assert "no mesh: no surface" in capsys.readouterr().err
    assert (tmp_path / "run" / "video.mp4").exists() and not (tmp_path / "run" / "mesh.glb").exists()


def test_a_cpu_has_defaults_of_its_own():
    args = program.parser().parse_args(["--text", "a car", "--size", "20"])
    cpu, gpu = (program.settings_of(args, on_cpu) for on_cpu in (True, False))
    assert cpu.iters == program.CPU["iters"] < gpu.iters and cpu.size == gpu.size == 20
    assert program.workspace_of("A Hamburger, please!").parts[-3:] == ("outputs", "task_3", "a_hamburger_please")


@pytest.mark.parametrize("folder", [HERE, HERE.parent])
def test_help_from_either_folder(folder):
    script = os.path.relpath(HERE / "main.py", folder)
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, script, "--help"], cwd=folder, env=outside, capture_output=True, text=True)
    assert done.returncode == 0 and "the guidance:" in done.stdout and "--lambda_orient" in done.stdout


def test_page_of_many_runs(options, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        text = f'{{"text": "a <{name}>", "iters": 3, "seed": 0, "backbone": "grid", "negative": "a cat & a dog"}}'
        (tmp_path / name / "settings.json").write_text(text)
    page = save_index(tmp_path).read_text()
    assert "2 runs" in page and "a &lt;one&gt;" in page and "a cat &amp; a dog" in page and "<video" not in page


def test_depth_is_bright_where_it_is_near():
    picture = torch.zeros(5, 8, 8)
    picture[3, :, :6], picture[4, :, :3], picture[4, :, 3:6] = 1, 2.2, 3.8
    shown = results.depth_map(picture, radius=3.0).astype(int)
    assert shown.shape == (8, 8, 3) and (shown[:, 6:] == 255).all()
    assert shown[:, :3].sum() > shown[:, 3:6].sum()
