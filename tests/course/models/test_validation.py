"""Folders that anybody may have written: whatever is damaged or odd in one ends in one
ModelError, and nothing of it is loaded."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import ModelMixin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from course.models import ModelError, find_model, load_pipeline, validation

UNET = "unet/diffusion_pytorch_model"
VAE = "vae/diffusion_pytorch_model"
TEXT = "text_encoder/model"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage. It is nobody's embedded model: no
    manifest lists its files."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def refuse(folder: Path, advice: str) -> None:
    """Check that `find_model` gives one error of one line, and that nothing is loaded: no
    weights, no pickle."""
    with pytest.MonkeyPatch.context() as patch:
        for library, name in (
            (torch, "load"),
            (ModelMixin, "from_pretrained"),
            (PreTrainedModel, "from_pretrained"),
        ):
            patch.setattr(library, name, lambda *_, **__: pytest.fail("weights were loaded"))
        with pytest.raises(ModelError, match=advice) as caught:
            find_model(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def remove(path: Path, entry: str) -> None:
    content = json.loads(path.read_text())
    del content[entry]
    path.write_text(json.dumps(content))


def shard(folder: Path, stem: str, **index: object) -> Path:
    """Store a network's weights in two files with an index, as large models are. Returns the
    index."""
    single = folder / f"{stem}.safetensors"
    tensors = load_file(single)
    single.unlink()
    names, files = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{single.stem}-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, single.parent / file)
        files |= dict.fromkeys(part, file)
    path = folder / f"{stem}.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files} | index))
    return path


def rewrite(folder: Path, stem: str, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / f"{stem}.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


# --- What is good


def test_good_models_pass(folder, tmp_path):
    assert find_model(folder).image_size == 64
    for stem in (UNET, VAE, TEXT):
        shard(folder, stem)
    assert load_pipeline(find_model(folder))("a duck", num_inference_steps=1).images[0].size == (
        64,
        64,
    )


def test_models_of_older_libraries_pass(folder):
    """Names that diffusers and transformers translate as they load: Stable Diffusion 1.5 on the
    Hub has both."""

    def older_attention(tensors):
        for name in list(tensors):
            for new, old in validation.OLD_NAMES.items():
                if ".attentions." in name and new in name:
                    tensors[name.replace(new, old)] = tensors.pop(name)

    def older_text(tensors):
        for name in list(tensors):
            tensors[f"text_model.{name}"] = tensors.pop(name)
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    pipe = load_pipeline(find_model(folder))
    expected = pipe.vae.state_dict() | pipe.text_encoder.state_dict()
    rewrite(folder, VAE, older_attention)
    rewrite(folder, TEXT, older_text)
    pipe = load_pipeline(find_model(folder))
    loaded = pipe.vae.state_dict() | pipe.text_encoder.state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_tokenizer_in_two_files_passes(folder):
    """vocab.json with merges.txt, as Stable Diffusion 1.5 has it, does for tokenizer.json."""
    before = find_model(folder).tokenizer("a red duck").input_ids
    tokenizer = folder / "tokenizer"
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer.json").unlink()
    assert find_model(folder).tokenizer("a red duck").input_ids == before


# --- Weights


def make_bin(folder: Path, stem: str) -> None:
    torch.save(load_file(folder / f"{stem}.safetensors"), folder / f"{stem}.bin")
    (folder / f"{stem}.safetensors").unlink()


@pytest.mark.parametrize("stem", [UNET, VAE, TEXT])
def test_weights_in_other_formats(folder, stem):
    make_bin(folder, stem)
    name = stem.split("/")[1]
    refuse(
        folder,
        rf"has no {name}\.safetensors, only {name}\.bin\..*can run code.*save_pretrained",
    )


@pytest.mark.parametrize("ending", ["fp16.safetensors", "ckpt", "msgpack", "onnx", ""])
def test_weights_under_other_names(folder, ending):
    file = folder / f"{UNET}.safetensors"
    if ending:
        file.rename(folder / f"{UNET}.{ending}")
    else:
        file.unlink()
    only = rf", only diffusion_pytorch_model\.{ending}" if ending else ""
    refuse(folder, rf"unet of .* has no diffusion_pytorch_model\.safetensors{only}\.")


@pytest.mark.parametrize("stem", [UNET, VAE, TEXT])
@pytest.mark.parametrize(
    "kind",
    ["cut", "no header", "empty", "half a header", "long", "a folder", "text"],
)
def test_weights_that_are_damaged(folder, stem, kind):
    file = folder / f"{stem}.safetensors"
    content = file.read_bytes()
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    else:
        file.write_bytes(
            {
                "cut": content[:-1],
                "no header": content[8:],
                "empty": b"",
                "half a header": content[:100],
                "long": content + b"x",
                "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1000\n",
            }[kind]
        )
    refuse(folder, r"is damaged or cut short|is missing\. Download")


@pytest.mark.parametrize("stem", [UNET, VAE, TEXT])
@pytest.mark.parametrize("kind", ["missing", "cut", "of another"])
def test_shards_that_are_missing_or_cut(folder, stem, kind):
    index = shard(folder, stem)
    first, second = sorted(index.parent.glob("*-of-00002.safetensors"))
    if kind == "missing":
        second.unlink()
        advice = rf"is incomplete: .*{second.name} is missing\. Download or save the model again"
    elif kind == "cut":
        second.write_bytes(second.read_bytes()[:-10])
        advice = rf"{second.name} of .* is damaged or cut short"
    else:
        shutil.copy(first, second)
        advice = r"The weights in .* do not fit config\.json: .* is missing"
    refuse(folder, advice)


@pytest.mark.parametrize(
    "file",
    [
        "../../other.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "x\\y.safetensors",
        "weights.bin",
        "",
    ],
)
def test_an_index_with_a_path(folder, file):
    shard(folder, UNET, weight_map={"conv_in.weight": file})
    refuse(folder, r"index\.json of .* names .*; it may only name safetensors files beside itself")


@pytest.mark.parametrize(
    "files",
    [None, [], "x", {"conv_in.weight": 7}, {"conv_in.weight": None}],
    ids=str,
)
def test_an_index_that_is_none(folder, files):
    shard(folder, UNET, weight_map=files)
    refuse(folder, r"index\.json of .* is damaged: it has no weight_map")


def test_two_sets_of_weights(folder):
    shutil.copy(shard(folder, UNET), folder / "index.json")
    shutil.copy(folder / f"{VAE}.safetensors", folder / f"{UNET}.safetensors")
    refuse(folder, r"unet of .* has both diffusion_pytorch_model\.safetensors and .*index\.json")


@pytest.mark.parametrize(
    ("stem", "tensor"),
    [
        (UNET, "conv_in.weight"),
        (UNET, "time_embedding.linear_1.weight"),
        (UNET, "mid_block.resnets.0.conv1.bias"),
        (VAE, "decoder.conv_out.weight"),
        (TEXT, "embeddings.token_embedding.weight"),
    ],
)
def test_wrong_shapes_and_missing_tensors(folder, stem, tensor):
    part = stem.split("/")[0]
    good = load_file(folder / f"{stem}.safetensors")[tensor]
    for wrong in (good[:-1], good[None], good.flatten()[0]):
        rewrite(folder, stem, lambda tensors, wrong=wrong: tensors.update({tensor: wrong.clone()}))
        advice = (
            rf"weights in {part} of .* do not fit config\.json: {tensor} must be {good.shape[0]}"
        )
        refuse(folder, advice)
    rewrite(folder, stem, lambda tensors: tensors.pop(tensor))
    refuse(folder, rf"do not fit config\.json: {tensor} is missing")


# --- Configurations

DEEP = "[" * 100_000
CONFIGS = [f"{part}/config.json" for part in ("unet", "vae", "text_encoder")]


@pytest.mark.parametrize("file", ["model_index.json", *CONFIGS, "scheduler/scheduler_config.json"])
@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"[]", r"it must hold an object \{\.\.\.\}, got \[\]"),
        (b"null", r"it must hold an object \{\.\.\.\}, got null"),
        (b"7", r"it must hold an object \{\.\.\.\}, got 7"),
        (b'"text"', r'it must hold an object \{\.\.\.\}, got "text"'),
        (DEEP.encode(), "it is not JSON"),
        (b'{"a":' + DEEP.encode(), "it is not JSON"),
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        ("{}".encode("utf-16"), "it is not JSON"),
    ],
    ids=["list", "null", "number", "text", "deep list", "deep object", "empty", "half", "UTF-16"],
)
def test_a_configuration_that_is_none(folder, file, content, advice):
    (folder / file).write_bytes(content)
    refuse(folder, rf"{Path(file).name} of .* is damaged: {advice}")


@pytest.mark.parametrize("file", ["model_index.json", *CONFIGS, "scheduler/scheduler_config.json"])
def test_a_folder_in_place_of_a_configuration(folder, file):
    (folder / file).unlink()
    (folder / file).mkdir()
    refuse(folder, r"is missing or not a file")


SIZES = ["64", 10**9, 0, -8, None, [8, 8], 8.0, True, float("nan"), {}, 10**30]


@pytest.mark.parametrize("value", SIZES, ids=str)
def test_sample_sizes(folder, value):
    change(folder / "unet/config.json", sample_size=value)
    refuse(
        folder,
        r"unet/config\.json of .*: sample_size must be a whole number from 1 to 1,024, got ",
    )
    remove(folder / "unet/config.json", "sample_size")
    refuse(folder, r"sample_size must be a whole number from 1 to 1,024, got None")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("unet/config.json", "in_channels"),
        ("unet/config.json", "out_channels"),
        ("unet/config.json", "block_out_channels"),
        ("unet/config.json", "layers_per_block"),
        ("unet/config.json", "transformer_layers_per_block"),
        ("unet/config.json", "cross_attention_dim"),
        ("vae/config.json", "block_out_channels"),
        ("vae/config.json", "latent_channels"),
        ("vae/config.json", "layers_per_block"),
        ("text_encoder/config.json", "max_position_embeddings"),
        ("text_encoder/config.json", "num_hidden_layers"),
        ("text_encoder/config.json", "hidden_size"),
        ("text_encoder/config.json", "vocab_size"),
        ("scheduler/scheduler_config.json", "num_train_timesteps"),
        ("scheduler/scheduler_config.json", "steps_offset"),
    ],
)
def test_numbers_out_of_range(folder, file, key):
    for value in ("4", None, 10**9, -1, [10**9], [["x"]], {}, 2.5, True, [1] * 1000):
        change(folder / file, **{key: value})
        refuse(folder, rf"{file} of .*: {key} must ")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("unet/config.json", "in_channels"),
        ("unet/config.json", "block_out_channels"),
        ("unet/config.json", "cross_attention_dim"),
        ("vae/config.json", "block_out_channels"),
        ("text_encoder/config.json", "max_position_embeddings"),
    ],
)
def test_entries_that_the_course_reads_are_needed(folder, file, key):
    remove(folder / file, key)
    refuse(folder, rf"{file} of .* is incomplete: it has no {key}")


@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("unet/config.json", {"block_out_channels": [16, 64]}),
        ("unet/config.json", {"block_out_channels": [16]}),
        ("unet/config.json", {"block_out_channels": 16}),
        ("unet/config.json", {"down_block_types": ["NoBlock2D", "CrossAttnDownBlock2D"]}),
        ("unet/config.json", {"down_block_types": None}),
        ("unet/config.json", {"attention_head_dim": 0}),
        ("unet/config.json", {"norm_num_groups": 7}),
        ("unet/config.json", {"act_fn": ["silu"]}),
        ("unet/config.json", {"layers_per_block": 2}),
        ("unet/config.json", {"cross_attention_dim": 32}),
        ("vae/config.json", {"block_out_channels": [8, 8, 8]}),
        ("vae/config.json", {"norm_num_groups": 0}),
        ("vae/config.json", {"up_block_types": "UpDecoderBlock2D"}),
        ("text_encoder/config.json", {"vocab_size": 49408}),
        ("text_encoder/config.json", {"max_position_embeddings": 512}),
        ("text_encoder/config.json", {"num_hidden_layers": 12}),
        ("text_encoder/config.json", {"num_attention_heads": 0}),
        ("text_encoder/config.json", {"hidden_act": "no such"}),
    ],
    ids=str,
)
def test_configurations_that_do_not_fit_the_weights(folder, file, entries):
    change(folder / file, **entries)
    part = file.split("/")[0]
    refuse(
        folder,
        rf"The weights in {part} of .* do not fit config\.json|{part} of .* cannot be loaded: ",
    )


@pytest.mark.parametrize(
    "kind",
    ["sample", "flow_prediction", "", None, 7, ["epsilon"], {}],
    ids=str,
)
def test_unknown_prediction_types(folder, kind):
    change(folder / "scheduler/scheduler_config.json", prediction_type=kind)
    refuse(
        folder,
        r"scheduler_config\.json of .*: prediction_type must be epsilon or v_prediction, got ",
    )


@pytest.mark.parametrize(
    ("entries", "advice"),
    [
        (
            {"beta_schedule": "exponential"},
            "beta_schedule must be linear or scaled_linear or squaredcos_cap_v2, got ",
        ),
        (
            {"timestep_spacing": "logarithmic"},
            "timestep_spacing must be leading or linspace or trailing, got ",
        ),
        ({"beta_start": "small"}, "beta_start must be a number from 0 to 1, got 'small'"),
        ({"beta_start": -1}, "beta_start must be a number from 0 to 1, got -1"),
        ({"beta_end": float("nan")}, "beta_end must be a number from 0 to 1, got nan"),
        ({"beta_end": None}, "beta_end must be a number from 0 to 1, got None"),
        ({"trained_betas": ["x"]}, "cannot be loaded"),
        ({"trained_betas": [2.0] * 1000}, "its betas must give a noise schedule"),
        ({"trained_betas": [0.5]}, "trained_betas must have 1,000 numbers, got 1"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_noise_schedules(folder, entries, advice):
    change(folder / "scheduler/scheduler_config.json", **entries)
    refuse(folder, advice)


def test_parts_that_do_not_fit_each_other(folder, tmp_path):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    small = dict(block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1)
    AutoencoderKL(
        latent_channels=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **small,
    ).save_pretrained(tmp_path / "vae")
    blocks = dict(
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    )
    UNet2DConditionModel(
        sample_size=8, cross_attention_dim=24, attention_head_dim=2, **blocks, **small
    ).save_pretrained(tmp_path / "unet")
    for part, advice in {
        "vae": "the UNet's in_channels is 4, but the autoencoder's latent_channels is 8",
        "unet": "the UNet's cross_attention_dim is 24, but the text encoder's hidden_size is 16",
    }.items():
        shutil.move(folder / part, tmp_path / "good")
        shutil.copytree(tmp_path / part, folder / part)
        refuse(folder, advice)
        shutil.rmtree(folder / part)
        shutil.move(tmp_path / "good", folder / part)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_any_entry_is_a_model_or_one_error(folder, data):
    file = data.draw(st.sampled_from([*CONFIGS, "scheduler/scheduler_config.json"]))
    good = (folder / file).read_text()
    key = data.draw(st.sampled_from(sorted(json.loads(good))))
    try:
        change(folder / file, **{key: data.draw(JSON)})
        load_pipeline(find_model(folder))
    except ModelError as error:
        assert "\n" not in str(error)
    finally:
        (folder / file).write_text(good)


# --- Tokenizers

ENDS = {"<|startoftext|>": 0, "<|endoftext|>": 1}


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def empty_folder(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def merges_alone(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "merges.txt")


def tokenizer_with(folder: Path, content: object) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(content))


def tokenizer_model(folder: Path, **entries: object) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"] |= entries
    tokenizer_with(folder, content)


@pytest.mark.parametrize(
    ("damage", "advice"),
    [
        (
            without_tokenizer,
            "neither tokenizer.json nor vocab.json with merges.txt, so every word would become",
        ),
        (empty_folder, "neither tokenizer.json nor vocab.json with merges.txt"),
        (merges_alone, "neither tokenizer.json nor vocab.json with merges.txt"),
        (
            lambda folder: tokenizer_with(folder, {}),
            "tokenizer of .* cannot be loaded|does not distinguish the letters",
        ),
        (lambda folder: tokenizer_with(folder, []), "tokenizer of .* cannot be loaded"),
        (lambda folder: tokenizer_with(folder, None), "tokenizer of .* cannot be loaded"),
        (
            lambda folder: (folder / "tokenizer.json").write_text(DEEP),
            "tokenizer of .* cannot be loaded",
        ),
        (
            lambda folder: tokenizer_model(folder, vocab={}),
            "does not distinguish the letters|cannot be loaded",
        ),
        (
            lambda folder: tokenizer_model(folder, vocab={"a</w>": 0, "<|endoftext|>": 1}),
            "does not distinguish the letters",
        ),
        (
            lambda folder: tokenizer_model(folder, vocab=ENDS),
            "does not distinguish the letters a to z",
        ),
        (
            lambda folder: change(folder / "tokenizer_config.json", model_max_length=40),
            "is 40, and the text encoder",
        ),
        (
            lambda folder: change(folder / "tokenizer_config.json", model_max_length=10**30),
            "model_max_length",
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").unlink(),
            "model_max_length of the tokenizer is 1000",
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
            "tokenizer of .* cannot be loaded",
        ),
        (
            lambda folder: (folder / "added_tokens.json").write_text('{"extra": 100000}'),
            "tokens up to|cannot be loaded",
        ),
    ],
)
def test_tokenizers(folder, damage, advice):
    damage(folder / "tokenizer")
    refuse(folder, advice)


# --- model_index.json


@pytest.mark.parametrize(
    ("entries", "advice"),
    [
        ({"unet": [None, None]}, r"has no \[library, class\] for unet, but \[None, None\]"),
        ({"vae": "AutoencoderKL"}, r"has no \[library, class\] for vae, but 'AutoencoderKL'"),
        ({"text_encoder": ["transformers"]}, r"has no \[library, class\] for text_encoder"),
        (
            {"unet": ["diffusers", "UNet2DModel"]},
            "unet of .* is a UNet2DModel; the lessons need a UNet2DConditionModel",
        ),
        (
            {"tokenizer": ["os", "system"]},
            "tokenizer of .* is a system; the lessons need a CLIPTokenizer",
        ),
        (
            {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]},
            "its folder safety_checker is missing",
        ),
        ({"image_encoder": ["transformers", 7]}, "its folder image_encoder is missing"),
        (
            {"../elsewhere": ["diffusers", "UNet2DConditionModel"]},
            "its folder ../elsewhere is missing",
        ),
        (
            {"_class_name": ["StableDiffusionPipeline"]},
            "the lessons need a StableDiffusionPipeline",
        ),
        ({"_class_name": "x" * 10_000}, r"is a x{57}\.\.\.; the lessons need"),
        (
            {"scheduler": ["diffusers", "NoScheduler"]},
            "scheduler of .* is a NoScheduler, which diffusers does not have",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_model_index(folder, entries, advice):
    change(folder / "model_index.json", **entries)
    refuse(folder, advice)


@pytest.mark.parametrize("part", list(validation.PARTS))
def test_parts_that_are_missing(folder, part):
    shutil.rmtree(folder / part)
    refuse(folder, rf"is incomplete: .*{part} is missing\. Download or save the model again")


@pytest.mark.parametrize("part", list(validation.PARTS))
def test_parts_whose_entry_is_missing(folder, part):
    remove(folder / "model_index.json", part)
    refuse(folder, rf"model_index\.json of .* has no \[library, class\] for {part}, but None")


# --- Names


@pytest.mark.parametrize(
    "name", ["~nobody_at_all/model", "a\0b", "x" * 5000, "loop", "file.safetensors", "\ud800", "~"]
)
def test_names_that_are_no_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    Path("file.safetensors").write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        find_model(name)
    assert len(str(caught.value)) < 500
    assert ("is not a folder" if name.startswith("file") else "model") in str(caught.value)
