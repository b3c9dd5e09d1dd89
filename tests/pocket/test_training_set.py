"""The toys of the lesson on training: rendered and encoded again they are the stored ones."""

import pytest
import torch

from course.models import find_model
from course.models.prompts import unknown_words
from course.training import TOYS, load_training_set, toy_caption
from pocket import training_set
from pocket.training_set import COLORS, PAIRS, UNSEEN


def test_the_captions_are_in_words_that_the_model_knows():
    vocabulary = find_model("pocket").vocabulary
    captions = [toy_caption(toy, color) for toy in UNSEEN for color in COLORS]
    assert [word for caption in captions for word in unknown_words(caption, vocabulary)] == []


def test_one_color_of_each_toy_is_left_out():
    assert len(PAIRS) == len(UNSEEN) * (len(COLORS) - 1)
    assert not set(PAIRS) & set(UNSEEN.items())
    assert {color for _, color in PAIRS} == set(COLORS)


def test_a_seed_gives_one_scene_and_another_seed_another():
    a, b, c = (training_set.sample_scene("car", "red", seed) for seed in (5, 5, 6))
    assert (a.params == b.params).all()
    assert (a.params != c.params).any()


def test_quantized_latents_are_close_to_the_latents():
    latents = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    numbers, low, step = training_set.quantize(latents)
    assert numbers.dtype == torch.uint8 and numbers.min() == 0 and numbers.max() == 255
    assert ((low + step * numbers.float() - latents).abs() <= 0.51 * step).all()


def test_the_first_images_are_the_stored_ones():
    """Up to the quantization, and to rounding in another build of PyTorch."""
    stored = load_training_set()
    assert stored.pairs[: len(PAIRS)] == PAIRS
    again = training_set.image_latents(PAIRS[:6], 0)
    assert (again - stored.latents[:6]).abs().mean() < 0.02


def test_the_command_writes_what_the_lesson_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_set, "PAIRS", PAIRS[:2])
    training_set.main(["--images", "1", "--seed", "3", "--folder", str(tmp_path)])
    assert "2 images" in capsys.readouterr().out
    data = load_training_set(tmp_path / TOYS.name)
    assert data.pairs == PAIRS[:2]
    assert (data.latents - training_set.image_latents(PAIRS[:2], 3)).abs().max() < 0.03


@pytest.mark.parametrize("option", [["--images", "0"], ["--seed", "-1"], ["--folder", __file__]])
def test_odd_options_are_refused(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        training_set.main(option)
    assert option[0] in capsys.readouterr().err
