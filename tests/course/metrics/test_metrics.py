"""Metrics against brute force, on sizes that do not fit, and what they refuse."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course import metrics
from course.errors import CourseError
from course.metrics import MetricError, PerceptualDistance


@pytest.fixture(scope="module")
def networks():
    return metrics.load_networks()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- Pieces


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 40))
def test_pieces_lie_in_the_image_and_do_not_overlap(height, width, size):
    image = torch.arange(3 * height * width).reshape(3, height, width).float()
    if size > min(height, width):
        with pytest.raises(MetricError, match=rf"got {size}\."):
            metrics.crops(image, size)
        return
    pieces = metrics.crops(image, size)
    assert pieces.shape == ((height // size) * (width // size), 3, size, size)
    places = pieces[:, 0].flatten().int().tolist()
    assert len(set(places)) == len(places)
    for piece in pieces:  # each is a square of the image as it is
        y, x = divmod(int(piece[0, 0, 0]), width)
        assert torch.equal(piece, image[:, y : y + size, x : x + size])


def test_pieces_lie_about_the_middle():
    image = torch.arange(7).float().expand(3, 2, 7)
    assert metrics.crops(image, 2)[:, 0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    tall = torch.arange(10).float().view(1, 10, 1).expand(3, 10, 3)
    assert metrics.crops(tall, 3)[:, 0, :, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    taller = torch.arange(14).float().view(1, 14, 1).expand(3, 14, 5)
    assert metrics.crops(taller, 5)[:, 0, 0, 0].tolist() == [2, 7]
    assert metrics.crops(torch.arange(9).float().expand(3, 3, 9), 3)[0, 0, 0, 0] == 0
    assert metrics.crops(torch.arange(8).float().expand(3, 3, 8), 3)[0, 0, 0, 0] == 1


# --- Coherence


def test_intra_distance_is_the_mean_of_all_pairs():
    image = noise(3, 20, 50)
    pieces = [image[:, :, x : x + 20] for x in (5, 25)]
    distance = lambda x, y: (x - y).square().sum(dim=(1, 2, 3)).view(-1, 1, 1, 1)
    result = metrics.intra_distance(image, distance, 20)
    assert result == pytest.approx((pieces[0] - pieces[1]).square().sum().item(), rel=1e-6)
    squares = [image[:, y : y + 10, x : x + 10] for y in (0, 10) for x in range(0, 50, 10)]
    distances = [(a - b).square().sum().item() for a, b in itertools.combinations(squares, 2)]
    assert metrics.intra_distance(image, distance, 10) == pytest.approx(
        sum(distances) / 45, rel=1e-6
    )


def test_intra_style_loss_is_that_of_gram_matrices():
    image = noise(3, 12, 26)
    layers = lambda x: [x, x[:, :2, ::2, ::3]]
    pieces = [image[:, :, x : x + 12] for x in (1, 13)]
    expected = 0.0
    for channels, rows, columns in ((3, 1, 1), (2, 2, 3)):
        grams = []
        for piece in pieces:
            f = piece[:channels, ::rows, ::columns].numpy().astype(np.float64)
            g = [[(f[i] * f[j]).sum() / f.size for j in range(channels)] for i in range(channels)]
            grams.append(np.array(g))
        expected += np.square(grams[0] - grams[1]).mean()
    assert metrics.intra_style_loss(image, layers, 12) == pytest.approx(expected, rel=1e-5)


def test_intra_style_loss_is_a_mean_over_pairs():
    """Three pieces, of which one differs: two of three pairs cost the same."""
    piece = noise(3, 8, 8)
    layers = lambda x: [x]
    two = metrics.intra_style_loss(torch.cat([piece, 0 * piece], dim=2), layers, 8)
    three = metrics.intra_style_loss(torch.cat([piece, 0 * piece, piece], dim=2), layers, 8)
    assert two > 0 and three == pytest.approx(two * 2 / 3, rel=1e-5)


@pytest.mark.parametrize("measure", [metrics.intra_distance, metrics.intra_style_loss])
def test_coherence_of_images_beyond_their_range(measure):
    """Clipped, as a viewer would see them."""
    network = {
        metrics.intra_distance: lambda x, y: (x - y).abs().mean().view(1),
        metrics.intra_style_loss: lambda x: [x],
    }[measure]
    image = 3 * noise(3, 8, 24)
    assert measure(image, network, 8) == pytest.approx(measure(image.clamp(-1, 1), network, 8))


def test_alike_pieces_cost_nothing_and_unlike_ones_do(networks):
    piece = noise(3, 64, 64)
    alike = torch.cat([piece, piece, piece], dim=2)
    unlike = torch.cat(
        [piece, piece.mean(dim=(1, 2), keepdim=True).expand_as(piece), -piece], dim=2
    )
    for measure, network in (
        (metrics.intra_distance, networks.distance),
        (metrics.intra_style_loss, networks.features),
    ):
        assert measure(alike, network, 64) == pytest.approx(0, abs=1e-6)
        assert measure(unlike, network, 64) > 1e-4


def test_the_distance_is_that_of_the_formula(networks):
    x, y = noise(2, 3, 40, 40, seed=1), noise(2, 3, 40, 40, seed=2)
    expected = np.zeros(2)
    for f, g in zip(networks.features(x), networks.features(y), strict=True):
        f, g = (layer.detach().numpy().astype(np.float64) for layer in (f, g))
        for n in range(2):
            distances = f[n] / np.linalg.norm(f[n], axis=0) - g[n] / np.linalg.norm(g[n], axis=0)
            expected[n] += np.square(distances).sum(axis=0).mean()
    assert np.allclose(networks.distance(x, y).detach().numpy(), expected, rtol=1e-4)


def test_what_judges_does_not_guide(networks):
    """Design decision 13: no weights in common with the distance that guides."""
    guide = {p.data_ptr() for p in PerceptualDistance().parameters()}
    shapes = {tuple(p.shape) for p in networks.features.judge.network.parameters()}
    assert (
        guide
        and shapes
        and type(networks.features.judge.network).__name__ == "ResNetForImageClassification"
    )
    assert all(
        "vision" not in name for name, _ in networks.features.judge.network.named_parameters()
    )


def test_the_step_across_the_wrap_comes_last():
    ramp = torch.arange(5).float().expand(3, 4, 5)
    assert metrics.column_differences(ramp).tolist() == [1, 1, 1, 1, 4]


# --- Words


def test_clip_score_prefers_the_right_words(networks):
    from course.images import load_image
    from course.models import WEIGHTS

    sheet = np.asarray(load_image(WEIGHTS / "samples" / "world.jpg", 256), np.float32) / 127.5 - 1
    image = torch.from_numpy(sheet).permute(2, 0, 1)
    score = metrics.clip_score(image[None], ["a beach"], networks.clip)
    assert 0 <= score <= 100
    both = metrics.clip_score(
        torch.stack([image, image]), ["a beach", "a forest at night"], networks.clip
    )
    other = metrics.clip_score(image[None], ["a forest at night"], networks.clip)
    assert both == pytest.approx((score + other) / 2, abs=1e-3)
    with pytest.raises(MetricError, match="1 images and 2 texts"):
        metrics.clip_score(image[None], ["a", "b"], networks.clip)


class FakeClip:
    """Vectors as they are given: the rows of images and texts."""

    def __init__(self, images, texts):
        self.image_vectors, self.rows = torch.tensor(images), torch.tensor(texts)
        self.seen = None

    def encode_images(self, images):
        self.seen = images
        return self.image_vectors

    def encode_texts(self, texts):
        return self.rows[: len(texts)]


@pytest.mark.parametrize(
    ("images", "texts", "score"),
    [
        ([[1.0, 0.0]], [[1.0, 0.0]], 100),
        ([[1.0, 0.0]], [[0.6, 0.8]], 60),
        ([[1.0, 0.0]], [[0.0, 1.0]], 0),
        ([[1.0, 0.0]], [[-1.0, 0.0]], 0),  # opposite: not -100
        ([[1.0, 0.0]], [[-0.6, 0.8]], 0),
        ([[1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [0.6, 0.8]], 30),  # each clamped, then the mean
        ([[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.6, 0.8]], 70),
        ([[-0.6, 0.8], [0.6, -0.8]], [[1.0, 0.0], [0.0, 1.0]], 0),
    ],
)
def test_the_clip_score_is_clamped_at_0(images, texts, score):
    clip = FakeClip(images, texts)
    value = metrics.clip_score(torch.zeros(len(images), 3, 4, 4), ["a"] * len(texts), clip)
    assert value == pytest.approx(score, abs=1e-4)


def test_clip_sees_images_clipped_to_their_range():
    clip = FakeClip([[1.0, 0.0]], [[1.0, 0.0]])
    metrics.clip_score(torch.tensor([-3.0, 0.25, 3.0]).view(1, 3, 1, 1), ["a"], clip)
    assert clip.seen.flatten().tolist() == [-1, 0.25, 1]


@pytest.mark.parametrize(
    ("count", "texts", "message"),
    [
        (0, [], "0 images and 0 texts"),
        (1, [], "1 images and 0 texts"),
        (2, ["a"], "2 images and 1 texts"),
    ],
)
def test_a_clip_score_takes_one_text_for_each_image(count, texts, message):
    with pytest.raises(MetricError, match=message):
        metrics.clip_score(torch.zeros(count, 3, 4, 4), texts, FakeClip([[1.0]], [[1.0]]))


def test_a_clip_score_that_is_not_finite():
    with pytest.raises(MetricError, match="CLIP score is nan"):
        metrics.clip_score(torch.zeros(1, 3, 4, 4), ["a"], FakeClip([[float("nan")]], [[1.0]]))


def test_vectors_of_clip_have_length_1_and_cut_long_texts(networks):
    images = networks.clip.encode_images(noise(2, 3, 40, 60))
    texts = networks.clip.encode_texts(["a beach", "a forest " * 200, ""])
    assert images.shape[0] == 2 and texts.shape[0] == 3 and images.shape[1] == texts.shape[1]
    for vectors in (images, texts):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert (texts[0] - texts[1]).norm() > 0.01 and (images[0] - images[1]).norm() > 1e-4


# --- Sets of images


def test_fid_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50_000, 3)) * [1, 2, 3]
    b = rng.normal(size=(50_000, 3)) * [2, 2, 1] + [1, 0, 0]
    assert metrics.fid(a, b) == pytest.approx(1 + 1 + 0 + 4, rel=0.03)
    assert metrics.fid(a, a) == pytest.approx(0, abs=1e-6)


def test_fid_by_eigenvalues():
    """tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A B."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(30, 5)) + 0.5
    covariances = []
    for s in (a, b):
        centered = s - s.mean(axis=0)
        covariances.append(centered.T @ centered / (len(s) - 1))
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    mean = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    expected = mean + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * roots
    assert metrics.fid(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-6)


def test_fewer_images_than_dimensions_still_give_a_number():
    rng = np.random.default_rng(2)
    assert np.isfinite(metrics.fid(rng.normal(size=(4, 32)), rng.normal(size=(5, 32))))


def test_a_root_that_is_not_finite_is_taken_again_with_a_small_offset(monkeypatch):
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(20, 3)), rng.normal(size=(20, 3)) + 1
    expected = metrics.fid(a, b)
    matrices = []

    def root(matrix, own=scipy.linalg.sqrtm):
        matrices.append(matrix)
        return own(matrix) if len(matrices) > 1 else np.full_like(matrix, np.nan)

    monkeypatch.setattr(scipy.linalg, "sqrtm", root)
    assert metrics.fid(a, b) == pytest.approx(expected, rel=1e-4)
    shifted = [np.cov(x, rowvar=False) + 1e-6 * np.eye(3) for x in (a, b)]
    np.testing.assert_allclose(matrices[1], shifted[0] @ shifted[1], rtol=1e-9)


def test_two_vectors_of_one_number_are_enough():
    a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]])
    assert metrics.fid(a, b) == pytest.approx(1)
    # (4^3 + 9^3) - 2 (3^3 + 5^3 + 7^3 + 13^3) / 4
    assert metrics.kid(a, b) == pytest.approx(-553)


def test_kid_takes_its_settings():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)) + 0.5
    first = metrics.kid(a, b, subsets=3, max_size=10, seed=1)
    assert first == metrics.kid(a, b, subsets=3, max_size=10, seed=1)
    assert first != metrics.kid(a, b, subsets=3, max_size=10, seed=2)
    assert first != metrics.kid(a, b, subsets=3, max_size=11, seed=1)
    assert first != metrics.kid(a, b, subsets=4, max_size=10, seed=1)
    assert metrics.kid(a, b, 3, 10) == metrics.kid(a, b, 3, 10, seed=0)


def test_kid_is_the_sum_over_pairs():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)) + 1
    kernel = lambda a, b: (sum(p * q for p, q in zip(a, b, strict=True)) / 4 + 1) ** 3
    expected = (
        sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i in range(6) for j in range(6) if i != j)
        / 30
    )
    expected -= 2 * sum(kernel(p, q) for p in x for q in y) / 36
    assert metrics.kid(x, y, subsets=3) == pytest.approx(
        expected, rel=1e-9
    )  # each subset is the whole
    alike = metrics.kid(
        rng.normal(size=(400, 4)), rng.normal(size=(400, 4)), subsets=20, max_size=200
    )
    assert abs(alike) < 0.1 < expected


def test_judged_vectors_of_images_of_any_size(networks):
    vectors = networks.embed([noise(3, 64, 64), noise(3, 32, 100)])
    assert vectors.shape[0] == 2 and vectors.isfinite().all() and not vectors.requires_grad
    with torch.no_grad():
        last = networks.features(noise(1, 3, 64, 64))[-1]  # (1, C, h, w)
    torch.testing.assert_close(vectors[0], last.mean(dim=(2, 3))[0])


# --- What it refuses


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.crops(torch.zeros(1, 8, 8), 4), r"got \(1, 8, 8\)"),
        (lambda: metrics.crops(torch.zeros(3, 8, 8), 0), "got 0"),
        (lambda: metrics.crops(torch.zeros(3, 8, 8), 2.5), "got 2.5"),
        (
            lambda: metrics.intra_distance(torch.zeros(3, 8, 15), lambda x, y: x, 8),
            "of 8 x 15 has one crop of 8 pixels",
        ),
        (
            lambda: metrics.intra_distance(
                torch.zeros(3, 8, 16), lambda x, y: torch.tensor(float("nan")), 8
            ),
            "intra-distance is nan",
        ),
        (lambda: metrics.fid(torch.zeros(5, 3), torch.zeros(5, 4)), r"got \(5, 3\) and \(5, 4\)"),
        (lambda: metrics.fid(torch.zeros(1, 3), torch.zeros(5, 3)), "at least 2 vectors"),
        (lambda: metrics.kid(torch.full((5, 3), float("inf")), torch.zeros(5, 3)), "not finite"),
        (lambda: metrics.kid(torch.zeros(5, 3), torch.zeros(5, 3), subsets=0), "0 subsets"),
        (lambda: metrics.kid(torch.zeros(5, 3), torch.zeros(5, 3), max_size=1), "subsets of 1"),
        (
            lambda: metrics.FeatureDistance(lambda x: [x])(
                torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5)
            ),
            "one shape",
        ),
    ],
)
def test_what_it_refuses(call, message):
    with pytest.raises(MetricError, match=message):
        call()


def test_the_published_networks_or_the_reason_why_not(monkeypatch):
    import builtins

    own = builtins.__import__

    def without(name, *rest):
        if name == "lpips":
            raise ImportError("no lpips here")
        return own(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CourseError, match="no lpips here.*The embedded distance needs none"):
        metrics.load_networks(published=True)
