"""Choosing a model: every name leads to one model or to one clear error."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from course.models import (
    ModelError,
    PromptWarning,
    RequestError,
    embedded_folder,
    find_model,
    hub,
    load_pipeline,
)
from course.models import model as models
from course.models import weights as course_weights
from tests.conftest import write_manifest


@pytest.fixture
def tiny_weights(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny weights, standing in for pocket/weights; a test may damage it."""
    weights = tmp_path / "pocket" / "weights"
    shutil.copytree(tiny_folder.parent, weights)
    monkeypatch.setattr(course_weights, "WEIGHTS", weights)
    return weights


# --- which model


def test_pocket_is_the_default_from_any_directory(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = find_model()
    assert (model.name, model.folder) == ("pocket", tiny_weights / "stable-diffusion")
    assert model.is_embedded


def test_the_weights_are_looked_for_beside_the_code():
    assert (
        Path(models.__file__).resolve().parents[2] / "pocket" / "weights" == course_weights.WEIGHTS
    )


def test_argument_comes_before_environment_before_pocket(tiny_weights, tiny_folder, monkeypatch):
    monkeypatch.setenv("COURSE_MODEL", str(tiny_folder))
    assert find_model().folder == tiny_folder
    assert not find_model().is_embedded
    assert find_model("pocket").is_embedded
    monkeypatch.setenv("COURSE_MODEL", "")
    assert find_model().is_embedded


@pytest.mark.parametrize("name", [*hub.HUB_IDS, "somebody/something"])
def test_hub_names_are_fetched_once_by_their_id(name, tiny_folder, monkeypatch):
    requests = []

    def download(repo, **patterns):
        requests.append((repo, patterns["allow_patterns"]))
        return str(tiny_folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert find_model(name).folder == tiny_folder
    assert {repo for repo, _ in requests} == {hub.HUB_IDS.get(name, name)}
    assert requests[0][1] == ["model_index.json"]
    assert "unet/*.safetensors" in requests[1][1] and not any(
        ".bin" in p or ".ckpt" in p for p in requests[1][1]
    )


def test_facts_come_from_the_configuration(tiny_folder):
    model = find_model(tiny_folder)
    assert (model.image_size, model.scale_factor, model.text_length) == (64, 8, 77)
    assert model.prediction_type == "epsilon"
    assert model.dtype == torch.float32  # small, so never in half precision


def test_load_pipeline_draws(tiny_folder):
    model = find_model(tiny_folder)
    pipe = load_pipeline(model)
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    assert pipe("a duck", num_inference_steps=1).images[0].size == (64, 64)


@pytest.mark.parametrize(
    ("size", "device", "dtype"),
    [
        (2**28 + 1, "cuda", torch.float16),
        (2**28, "cuda", torch.float32),
        (2**28 + 1, "cpu", torch.float32),
        (2**28 + 1, "mps", torch.float32),
        (0, "cuda", torch.float32),
    ],
)
def test_half_precision_is_for_large_models_on_cuda(size, device, dtype, tmp_path, monkeypatch):
    (tmp_path / "unet").mkdir()
    for name, part in (("a", size // 2), ("b", size - size // 2)):
        with open(tmp_path / "unet" / f"{name}.safetensors", "wb") as file:
            file.truncate(part)  # a hole: no disk is used
    monkeypatch.setattr(models.Model, "device", torch.device(device))
    assert models.Model("large", tmp_path).dtype == dtype


# --- clear errors


def test_unknown_name_lists_the_names_and_the_nearest():
    with pytest.raises(ModelError, match=r'no model "pockett".*did you mean pocket.*sd-2\.1-base'):
        find_model("pockett")


def test_unknown_name_from_the_environment_does_not_fall_back(monkeypatch):
    monkeypatch.setenv("COURSE_MODEL", "sd1.5")
    with pytest.raises(ModelError, match=r'no model "sd1\.5".*did you mean sd-1\.5'):
        find_model()


@pytest.mark.parametrize(
    "file", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors", "model_index.json"]
)
def test_missing_file_is_named(file, tiny_weights):
    (tiny_weights / "stable-diffusion" / file).unlink()
    with pytest.raises(
        ModelError, match=rf"pocket/weights/stable-diffusion/{file} is missing.*git checkout"
    ):
        find_model()


def test_damaged_file_is_named(tiny_weights):
    file = tiny_weights / "stable-diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # the size stays
    file.write_bytes(content)
    with pytest.raises(
        ModelError, match=r"unet/diffusion_pytorch_model\.safetensors is damaged.*SHA-256"
    ):
        find_model()


def test_cut_off_file_is_named(tiny_weights):
    file = tiny_weights / "stable-diffusion" / "tokenizer" / "tokenizer_config.json"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is damaged: .* bytes where"):
        find_model()


def test_a_missing_vocabulary_does_not_silence_the_warnings(tiny_weights):
    (tiny_weights / "vocabulary.json").unlink()
    with pytest.raises(ModelError, match=r"pocket/weights/vocabulary\.json is missing"):
        find_model()


def test_missing_manifest_or_part(tiny_weights):
    with pytest.raises(ModelError, match=r"lists no file of judge"):
        embedded_folder("judge")
    (tiny_weights / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest\.json is damaged"):
        find_model()
    (tiny_weights / "manifest.json").unlink()
    with pytest.raises(ModelError, match=r"manifest\.json is missing"):
        find_model()


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "null",
        "7",
        '"text"',
        "",
        "[" * 100_000,
        '{"files": []}',
        '{"files": null}',
        '{"files": {"stable-diffusion/unet/config.json": null}}',
        '{"files": {"stable-diffusion/unet/config.json": {"size": "x", "sha256": 7}}}',
        '{"files": {"stable-diffusion/unet/config.json": {}}}',
    ],
    ids=lambda content: content[:60],
)
def test_a_manifest_that_is_none(tiny_weights, content):
    (tiny_weights / "manifest.json").write_text(content)
    with pytest.raises(ModelError, match=r"manifest\.json .*is damaged: .*git checkout"):
        find_model()


def test_a_folder_in_place_of_a_file(tiny_weights):
    file = tiny_weights / "stable-diffusion" / "unet" / "config.json"
    file.unlink()
    file.mkdir()
    with pytest.raises(
        ModelError,
        match=r"pocket/weights/stable-diffusion/unet/config\.json is missing.*git checkout",
    ):
        find_model()
    (tiny_weights / "manifest.json").unlink()
    (tiny_weights / "manifest.json").mkdir()
    with pytest.raises(
        ModelError, match=r"manifest\.json is damaged: .*missing or not a file.*git checkout"
    ):
        find_model()


@pytest.mark.parametrize(
    "file",
    [
        "tokenizer/added_tokens.json",
        "tokenizer/merges.txt",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/adapter_config.json",
        "generation_config.json",
        "lora/pytorch_lora_weights.safetensors",
    ],
)
def test_a_file_that_the_manifest_does_not_list_is_named(tiny_weights, file):
    path = tiny_weights / "stable-diffusion" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"duck": 5}')
    with pytest.raises(
        ModelError,
        match=rf"pocket/weights/stable-diffusion/{file} is not one of the embedded.*Move it",
    ):
        find_model()
    path.unlink()
    assert find_model().is_embedded


@pytest.mark.parametrize(
    "file", [".DS_Store", "unet/._config.json", "unet/Thumbs.db", ".cache/a.json", "desktop.ini"]
)
def test_files_of_the_system_do_no_harm(tiny_weights, file):
    path = tiny_weights / "stable-diffusion" / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    assert find_model().is_embedded


def test_the_pocket_folder_by_its_path_is_checked_too(tiny_weights):
    (tiny_weights / "stable-diffusion" / "unet" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        find_model(tiny_weights / "stable-diffusion")


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        find_model(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(
        ModelError, match=r"is a FluxPipeline; the lessons need a StableDiffusionPipeline"
    ):
        find_model(tmp_path)
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline"})
    )
    with pytest.raises(ModelError, match=r"incomplete: .*unet is missing"):
        find_model(tmp_path)


# --- prompts


def test_unknown_words_are_named_once_and_in_order(tiny_folder):
    model = find_model(tiny_folder)
    with pytest.warns(PromptWarning, match=r"has never seen: zebra, juggling\. "):
        assert (
            model.check_prompt("A zebra juggling a Zebra on Mars")
            == "A zebra juggling a Zebra on Mars"
        )


def test_known_words_draw_no_warning(tiny_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_model(tiny_folder).check_prompt("A red car, on Mars!") == "A red car, on Mars!"
        assert find_model(tiny_folder).check_prompt("") == ""


def test_a_model_without_a_vocabulary_knows_all_words(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_model(tmp_path / "model").check_prompt("a zebra")


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", '{"words": 7}', '{"words": [1]}', '{"words": "duck"}', "{"]
)
def test_a_damaged_vocabulary_is_one_error(tiny_folder, tmp_path, content):
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(ModelError, match=r"vocabulary\.json of .* is damaged"):
        find_model(tmp_path / "model").check_prompt("a duck")


def test_a_long_prompt_is_cut_at_a_word_and_says_what_is_lost(tiny_folder):
    model = find_model(tiny_folder)  # 77 tokens, one a letter: 75 letters
    prompt = " ".join(["duck"] * 18 + ["at", "night", "on", "mars"])  # 72 letters, then 74, 79, ...
    with pytest.warns(PromptWarning, match=r'reads 75 tokens\. Cut from its end: "night on mars"'):
        kept = model.check_prompt(prompt)
    assert kept == " ".join(["duck"] * 18 + ["at"])
    assert len(model.tokenizer(kept).input_ids) <= model.text_length


def test_a_prompt_that_just_fits_is_kept(tiny_folder):
    model = find_model(tiny_folder)
    prompt = " ".join(["duck"] * 18 + ["red"])  # 75 letters
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.check_prompt(prompt) == prompt


def test_one_endless_word_is_cut_inside(tiny_folder):
    model = find_model(tiny_folder)
    assert models.cut_prompt("x" * 200, model.tokenizer, 77) == "x" * 75


def test_diffusers_has_nothing_left_to_cut(tiny_folder, caplog):
    model = find_model(tiny_folder)
    with pytest.warns(PromptWarning):
        kept = model.check_prompt("a duck " * 40)
    load_pipeline(model)(kept, num_inference_steps=1)
    assert "truncated" not in caplog.text


def test_errors_and_warnings_show_only_their_message():
    assert ModelError("no such model")._render_traceback_() == ["ModelError: no such model"]
    assert (
        warnings.formatwarning(PromptWarning("cut"), PromptWarning, "file.py", 3)
        == "PromptWarning: cut\n"
    )
    assert "file.py:3" in warnings.formatwarning(UserWarning("other"), UserWarning, "file.py", 3)


def test_manifest_helper_agrees_with_the_check(tiny_weights):
    (tiny_weights / "judge").mkdir()
    (tiny_weights / "judge" / "config.json").write_text("{}")
    write_manifest(tiny_weights)
    assert embedded_folder("judge") == tiny_weights / "judge"


# --- Requests


def test_prompts_and_negative_prompts_in_pairs(tiny_folder):
    model = find_model(tiny_folder)
    assert model.pair_prompts("a duck") == [["a duck"], [""]]
    assert model.pair_prompts(["a car", ""], "a tree") == [["a car", ""], ["a tree", "a tree"]]
    assert model.pair_prompts(("a car", "a tree"), ["", "red"]) == [
        ["a car", "a tree"],
        ["", "red"],
    ]
    with pytest.warns(PromptWarning, match="Cut from its end"):
        [[kept], _] = model.pair_prompts("duck " * 100)
    assert len(model.tokenizer(kept).input_ids) <= model.text_length
    for prompts, negatives, message in [
        ([], "", "no prompt"),
        (["a duck", None], "", "must be text, got None"),
        ("a duck", [], "1 prompts and 0 negative"),
        (
            ["a duck"] * 3,
            ["a"] * 2,
            "3 prompts and 2 negative prompts: give as many, or one for all",
        ),
    ]:
        with pytest.raises(RequestError, match=message):
            model.pair_prompts(prompts, negatives)


def test_numbers_of_steps(tiny_folder, tmp_path):
    model = find_model(
        tiny_folder
    )  # leading, with an offset of 1: a step a level would begin behind the last one
    assert [model.check_steps(steps) for steps in (1, 25, 999)] == [1, 25, 999]
    for steps in (0, -3, 1000, 2.0, "25", True):
        with pytest.raises(
            RequestError, match=f"number of sampling steps for .* from 1 to 999, got {steps!r}"
        ):
            model.check_steps(steps)
    for number in (np.int64, np.int32, np.uint8, np.array, torch.tensor):
        assert model.check_steps(number(25)) == 25 and type(model.check_steps(number(25))) is int
    shutil.copytree(tiny_folder, tmp_path / "trailing")
    file = tmp_path / "trailing" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"timestep_spacing": "trailing"}))
    assert find_model(tmp_path / "trailing").check_steps(1000) == 1000


def test_sizes(tiny_folder):
    model = find_model(tiny_folder)
    assert model.latent_size() == (8, 8)
    assert model.latent_size(72, 40) == (9, 5) and model.latent_size(width=8) == (8, 1)
    for height, width, message in [
        (70, 64, "height must be a multiple of 8 .* got 70. The nearest is 72"),
        (64, 3, "width must be a whole number of at least 8, got 3"),
        (-8, 64, "height must be .* got -8"),
        (64, 64.0, "width must be .* got 64.0"),
        (True, 64, "height must be .* got True"),
    ]:
        with pytest.raises(RequestError, match=message):
            model.latent_size(height, width)
    for number in (np.int64, np.int32, np.uint8, np.array, torch.tensor):
        size = model.latent_size(number(72), number(40))
        assert size == (9, 5) and {type(side) for side in size} == {int}


def test_every_id_of_the_hub_is_one_of_a_repository():
    """In one place, one repository each."""
    ids = [
        *hub.HUB_IDS.values(),
        *hub.ESTIMATORS.values(),
        *(i for m in hub.CONTROLNETS.values() for i in m.values()),
    ]
    assert len(set(ids)) == len(ids) and all(i.count("/") == 1 for i in ids)
    assert set(hub.CONTROLNETS) <= set(hub.HUB_IDS)
    others = [path for path in Path(models.__file__).parent.glob("*.py") if path.name != "hub.py"]
    assert not [path.name for path in others for i in ids if i in path.read_text()]
