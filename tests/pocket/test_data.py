"""The pool of images: captions and hard negatives, workers, shards, loading, augmentation."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from course.metrics.preprocess import resize
from pocket.train import data, scenes
from pocket.train.__main__ import main as train_main
from pocket.train.images import augment, normalize, to_float, write_processor
from pocket.train.pool import Pool, image_budget
from pocket.train.tokenizer import LENGTH
from pocket.world import sample_labels, sample_scene
from pocket.world import vocabulary as v

CPU = torch.device("cpu")


def load_pool(work: Path, rank: int = 0, processes: int = 1, **options) -> Pool:
    run = argparse.Namespace(
        work=work, device=CPU, rank=rank, processes=processes, is_main=rank == 0
    )
    return Pool(run, **options)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder after the data stage: 10 training scenes and one held out."""
    folder = tmp_path_factory.mktemp("work")
    train_main(["data", "--smoke", "--scenes", "10", "--work", str(folder)])
    return folder


def test_hard_negatives_change_one_field_and_name_it() -> None:
    rng = np.random.default_rng(0)
    changed: dict[str, int] = {}
    for seed in range(1500):
        labels = sample_labels(rng, seed)[()]
        before = labels.tobytes()
        text, wrong, field = scenes.caption_pair(labels, rng)
        assert text != wrong
        assert labels.tobytes() == before
        changed[field] = changed.get(field, 0) + 1
    assert set(changed) == {*v.CLASSES, "view", "swap", "exchange"}


def test_a_hard_negative_keeps_the_other_fields() -> None:
    rng = np.random.default_rng(1)
    for seed in range(300):
        labels = sample_labels(rng, seed, kind="object")[()]
        other, field = scenes.hard_negative(labels, frozenset({"object", "ground"}), rng)
        differs = {name for name in v.LABELS.names if other[name] != labels[name]}
        if field == "swap":
            assert labels["relation"] > 0 and other["object"] == labels["object2"]
            assert differs <= {
                f"{name}{which}" for name in scenes.OBJECT_FIELDS for which in ("", "2")
            }
        else:
            assert differs == {field}
        if field == "object":
            alive = [v.OBJECTS[record["object"]] in v.ANIMATE for record in (labels, other)]
            assert alive[0] == alive[1]


def test_two_objects_exchange_their_looks() -> None:
    """For binding: a green astronaut on a yellow duck becomes a yellow one on a green duck."""
    rng = np.random.default_rng(3)
    labels = v.empty_labels()[()]
    for field, name in {
        "object": "astronaut",
        "color": "green",
        "pattern": "plain",
        "relation": "riding",
        "object2": "duck",
        "color2": "yellow",
        "pattern2": "striped",
        "count": "one",
        "style": "photo",
        "ground": "snow",
        "lighting": "day",
    }.items():
        labels[field] = v.CLASSES[field].index(name)
    seen = set()
    for _ in range(200):
        text, wrong, field = scenes.caption_pair(labels, rng)
        if field == "exchange":
            seen.add(wrong)
            assert text != wrong
            if "green" in wrong:
                assert wrong.index("green") > wrong.index("rid")
            if "yellow" in wrong:
                assert wrong.index("yellow") < wrong.index("rid")
    assert len(seen) > 3


def test_hard_negatives_of_views_are_other_views() -> None:
    rng = np.random.default_rng(2)
    for seed in range(300):
        labels = sample_labels(rng, seed, kind="object")[()]
        if v.OBJECTS[labels["object"]] in v.WITH_FRONT:
            other, field = scenes.hard_negative(labels, frozenset({"view"}), rng)
            words = [
                v.view_word(float(r["azimuth"]), float(r["elevation"])) for r in (labels, other)
            ]
            assert (words[0] != words[1]) == (field == "view")


def test_workers_sample_the_same_scenes_in_order() -> None:
    batches = [range(0, 150), range(150, 200), range(900, 903)]
    alone = list(scenes.scene_batches(batches, scenes.sample_scenes))
    together = list(scenes.scene_batches(batches, scenes.sample_scenes, workers=2))
    assert [len(part) for part in together] == [150, 50, 3]
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a.labels, b.labels) and np.array_equal(a.params, b.params)
        assert a.captions == b.captions and a.negatives == b.negatives
        assert all(len(texts) == scenes.CAPTIONS for texts in a.captions)
        assert a.labels.tolist() == [
            sample_scene(int(seed)).labels.tolist() for seed in a.labels["seed"]
        ]
    assert [int(s) for part in alone for s in part.labels["seed"]] == [
        s for batch in batches for s in batch
    ]


def test_splits_keep_their_promise() -> None:
    assert not scenes.sample_all(range(60), "train").labels["heldout"].any()
    assert scenes.sample_all(range(20), "heldout").labels["heldout"].all()


def test_data_stage_writes_shards_and_does_not_draw_them_twice(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = work / "data" / "train" / "000"
    images = np.load(shard / "images.npy")
    assert images.shape == (10, 256, 256, 3) and images.dtype == np.uint8
    assert all(image.std() > 3 for image in images)
    assert np.load(shard / "labels.npy")["seed"].tolist() == list(range(10))
    assert np.load(work / "data" / "heldout" / "000" / "labels.npy")["heldout"].all()
    tokens = np.load(shard / "tokens.npy")
    assert tokens.shape == (10, scenes.CAPTIONS, LENGTH) and tokens.dtype == np.int16

    def draws(*_, **__):
        raise AssertionError("a finished shard was drawn again")

    monkeypatch.setattr(data, "render", draws)
    train_main(["data", "--smoke", "--scenes", "10", "--work", str(work)])


def test_a_disk_too_small_is_named_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.shutil, "disk_usage", lambda _: argparse.Namespace(free=2**20))
    with pytest.raises(SystemExit, match=r"take 0\.0 GiB in .*--scenes"):
        train_main(["data", "--smoke", "--scenes", "10", "--work", str(tmp_path)])
    assert not list((tmp_path / "data").glob("train/*"))


def test_workers_are_shared_among_processes_and_forked_on_linux_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scenes, "cpu_cores", lambda: 16)
    monkeypatch.setattr(scenes.sys, "platform", "linux")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert scenes.worker_count() == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert scenes.worker_count() == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr(scenes.sys, "platform", "win32")
    assert scenes.worker_count() == 0


def test_pool_holds_what_was_drawn(work: Path) -> None:
    pool = load_pool(work)
    assert len(pool) == 10 and not pool.labels["heldout"].any()
    assert len(load_pool(work, heldout=True)) == 11
    images, indices = pool.sample(32, torch.Generator().manual_seed(0))
    stored = np.load(work / "data" / "train" / "000" / "images.npy")
    assert np.array_equal(images.numpy(), stored[indices.numpy()])
    tokens, negatives = pool.captions(indices, torch.Generator().manual_seed(0))
    assert tokens.shape == negatives.shape == (32, LENGTH) and tokens.dtype == torch.int64
    assert (tokens != negatives).any(dim=1).all()
    known = np.load(work / "data" / "train" / "000" / "tokens.npy")
    assert all(
        (known[i] == row).all(axis=1).any()
        for i, row in zip(indices.tolist(), tokens.numpy(), strict=True)
    )


def test_processes_share_the_pool_out(work: Path) -> None:
    parts = [load_pool(work, rank, 3, heldout=True) for rank in range(3)]
    seeds = sorted(seed for part in parts for seed in part.labels["seed"].tolist())
    assert seeds == sorted(load_pool(work, heldout=True).labels["seed"].tolist())


@pytest.mark.parametrize(("free", "room"), [(8, 2), (24, 10), (140, 105)])
def test_a_small_gpu_keeps_room_to_train(free: int, room: int) -> None:
    assert image_budget(free * 2**30) == room * 2**30


def test_smaller_pool_is_the_resized_one(work: Path) -> None:
    small, full = load_pool(work, size=128), load_pool(work)
    wanted = resize(to_float(full.images), (128, 128))
    assert (to_float(small.images) - wanted).abs().max() <= 0.51 / 255


def test_pool_refuses_held_out_scenes_among_training(work: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "000").symlink_to(work / "data" / "heldout" / "000")
    with pytest.raises(ValueError, match="held-out composition"):
        load_pool(tmp_path)
    with pytest.raises(FileNotFoundError, match="train data"):
        load_pool(tmp_path / "nowhere")


def test_resize_averages_and_can_be_derived() -> None:
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1.0
    small = resize(stripes.requires_grad_(), (16, 16))
    assert small[..., 2:-2].sub(0.5).abs().max() < 0.05
    small.sum().backward()
    assert stripes.grad is not None and (stripes.grad > 0).all()


def test_augmented_images_stay_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.full((64, 3, 64, 64), 0.2)
    images[:, 0, :, :32] = 0.9  # red on the left
    changed = augment(images, generator)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    assert (
        changed[:, 0, :, :20].mean((1, 2)) > changed[:, 0, :, -20:].mean((1, 2)) + 0.4
    ).all()  # never flipped
    assert (
        changed[:, 0, :, :20].mean((1, 2)) > changed[:, 1, :, :20].mean((1, 2)) + 0.4
    ).all()  # still red
    assert changed.flatten(1).std(dim=0).max() > 0.1


def test_augmentation_does_not_depend_on_autocast() -> None:
    images = torch.rand(4, 3, 96, 96)
    plain = augment(images, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images, torch.Generator().manual_seed(0)), plain)


def test_normalized_images_span_minus_one_to_one() -> None:
    pixels = normalize(to_float(torch.tensor([0, 255, 0], dtype=torch.uint8).view(1, 1, 1, 3)))
    assert pixels.flatten().tolist() == [-1, 1, -1]


def test_processor_prepares_as_training_does(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    write_processor(tmp_path, 128)
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(
        Image.fromarray(image), return_tensors="pt"
    )["pixel_values"]
    ours = normalize(resize(to_float(torch.from_numpy(image)[None]), (128, 128)))
    assert (theirs - ours).abs().max() < 0.02


def test_tokenizer_of_the_stage_repeats() -> None:
    result = [
        data.make_tokenizer(50).get_vocab() for _ in range(8)
    ]  # equal counts were settled by chance once
    assert all(vocab == result[0] for vocab in result)


def test_the_longest_of_many_captions_fits() -> None:
    tokenizer = data.make_tokenizer(50)
    captions = scenes.sample_all(range(300)).captions
    ids = data.encode_all(tokenizer, captions)
    assert (ids == tokenizer.eos_token_id).any(axis=2).all()
    assert max(len(tokenizer(t)["input_ids"]) for texts in captions for t in texts) <= LENGTH
