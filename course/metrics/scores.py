"""How coherent is a panorama, and how good are pieces of it? The figures of the literature, on images of any size.

    networks = find_networks()                      # offline: the judge, which guides nothing in the lessons
    intra_lpips(panorama, networks.distance, 256)   # pieces of 256 x 256 that look alike: a low value
    frechet_distance(networks.embed(pieces), networks.embed(single_images))

A distance that guides is not the distance that judges: no network here takes part in drawing.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course.errors import CourseError
from course.metrics.judge import Judge
from course.metrics.perceptual import published_lpips
from course.metrics.preprocess import Preprocess
from course.models import embedded_folder, hide_loading_bars
from course.models.files import load_network, loading
from course.models.hub import CLIP, fetch

Layers = list[Tensor]


class MetricError(CourseError, ValueError):
    """A figure cannot be worked out; the message says of what and why."""


# --- Pieces


def crops(image: Tensor, size: int) -> Tensor:
    """The non-overlapping squares of an image (3, H, W), as many as fit, in rows and columns, about its middle:
    (K, 3, size, size). Raises MetricError if not one fits."""
    if image.dim() != 3 or image.shape[0] != 3:
        raise MetricError(f"A picture is a tensor (3, H, W), not {tuple(image.shape)}.")
    height, width = image.shape[-2:]
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= min(height, width):
        raise MetricError(
            f"No square of {size!r} pixels fits into {height} x {width}: choose 1 to {min(height, width)}."
        )
    rows, columns = height // size, width // size
    top, left = (height - rows * size) // 2, (width - columns * size) // 2
    whole = image[:, top : top + rows * size, left : left + columns * size]
    return whole.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1)


def _pairs(image: Tensor, size: int) -> tuple[Tensor, list[tuple[int, int]]]:
    pieces = crops(image, size)
    if len(pieces) < 2:
        raise MetricError(
            f"A picture of {image.shape[-2]} x {image.shape[-1]} has one piece of {size} pixels; to compare takes "
            "two: choose smaller pieces or a larger picture."
        )
    return pieces, list(itertools.combinations(range(len(pieces)), 2))


# --- Coherence


@torch.no_grad()
def intra_lpips(image: Tensor, distance: Callable[[Tensor, Tensor], Tensor], size: int) -> float:
    """The mean perceptual distance of all pairs of non-overlapping pieces (SyncDiffusion, Lee et al. 2023).

    image: (3, H, W) in [-1, 1]; distance: two batches (N, 3, size, size) to N values, such as `lpips.LPIPS`.
    Raises MetricError if there are not two pieces, or a value is not finite.
    """
    pieces, pairs = _pairs(image.clamp(-1, 1), size)
    values = [float(distance(pieces[i : i + 1], pieces[j : j + 1])) for i, j in pairs]
    return _finite(sum(values) / len(values), "Intra-LPIPS")


@torch.no_grad()
def intra_style_loss(image: Tensor, features: Callable[[Tensor], Layers], size: int) -> float:
    """The mean style loss (Gatys et al. 2016) of all pairs of non-overlapping pieces: the sum over layers of the mean
    squared difference of Gram matrices. Published tables give it times 100.

    image: (3, H, W) in [-1, 1]; features: (N, 3, size, size) to a list of (N, C, h, w). Raises MetricError as
    `intra_lpips` does.
    """
    pieces, pairs = _pairs(image.clamp(-1, 1), size)
    grams = [gram(layer) for layer in features(pieces)]
    values = [sum(float((g[i] - g[j]).square().mean()) for g in grams) for i, j in pairs]
    return _finite(sum(values) / len(values), "Intra-Style-L")


def column_steps(image: Tensor) -> Tensor:
    """How much each column of pixels differs from the next, the mean over rows and channels, of an image (3, H, W):
    (W,). The last number is the step from the last column to the first, where a closed panorama meets itself."""
    return (image.roll(-1, dims=-1) - image).abs().mean(dim=(0, 1))


def gram(layer: Tensor) -> Tensor:
    """How channels go together: (N, C, h, w) to (N, C, C), the mean over positions, divided by C."""
    flat = layer.flatten(2).float()  # (N, C, h w)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def _finite(value: float, name: str) -> float:
    if not np.isfinite(value):
        raise MetricError(
            f"{name} is {value}: the picture or the network's answer holds numbers that are not finite."
        )
    return value


# --- Words


@torch.no_grad()
def clip_score(images: Tensor, texts: Sequence[str], clip: "Clip") -> float:
    """The mean over images of 100 max(cos, 0), the cosine of image and text as CLIP sees them (Hessel et al. 2021,
    with the scale that is in use for generated images).

    images: (N, 3, H, W) in [-1, 1], one text each. Raises MetricError if the numbers differ.
    """
    if len(images) != len(texts) or not len(texts):
        raise MetricError(
            f"{len(images)} pictures and {len(texts)} texts: there has to be one text for each picture."
        )
    cosines = (clip.images(images.clamp(-1, 1)) * clip.texts(texts)).sum(dim=-1)
    return _finite(float(100 * cosines.clamp_min(0).mean()), "The CLIP score")


class Clip:
    """A CLIP model on a device: the embedded one, or a published one. Its vectors have length 1."""

    def __init__(self, published: bool = False, device: str | torch.device = "cpu") -> None:
        from transformers import AutoTokenizer, CLIPModel

        hide_loading_bars()
        wanted = [
            "config.json",
            "preprocessor_config.json",
            "*.safetensors",
            "tokenizer*",
            "vocab.json",
            "merges.txt",
        ]
        folder = fetch(CLIP, CLIP, wanted) if published else embedded_folder("clip")
        self.device = torch.device(device)
        self.network = load_network(CLIPModel, folder, "CLIP").to(self.device).eval()
        with loading("CLIP"):
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.preprocess = Preprocess(folder).to(self.device)
        self.length = self.network.config.text_config.max_position_embeddings

    def images(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, D)."""
        seen = self.network.vision_model(
            pixel_values=self.preprocess(images.to(self.device))
        ).pooler_output
        return F.normalize(self.network.visual_projection(seen), dim=-1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """N texts to (N, D)."""
        settings = dict(
            padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        tokens = self.tokenizer(list(texts), **settings).to(self.device)
        read = self.network.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        return F.normalize(self.network.text_projection(read), dim=-1)


# --- Sets of images


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """FID of two sets of vectors (N, D) and (M, D) (Heusel et al. 2017): the squared distance of the means, plus
    tr(A + B - 2 (A B)^(1/2)) of the covariances. The root as in clean-fid (Parmar et al. 2022), by scipy, on float64.
    Raises MetricError if the sets do not fit, have fewer than two vectors, or numbers that are not finite."""
    from scipy.linalg import sqrtm

    x, y = _sets(a, b)
    first, second = (np.cov(s, rowvar=False).reshape(s.shape[1], s.shape[1]) for s in (x, y))
    root = np.asarray(sqrtm(first @ second))
    if not np.isfinite(root).all():  # nearly singular: with fewer images than dimensions
        offset = 1e-6 * np.eye(len(first))
        root = np.asarray(sqrtm((first + offset) @ (second + offset)))
    distance = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(distance + np.trace(first) + np.trace(second) - 2 * np.trace(root.real))


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 100, most: int = 1000, seed: int = 0
) -> float:
    """KID of two sets of vectors (N, D) and (M, D) (Binkowski et al. 2018): the unbiased squared maximum mean
    discrepancy with the kernel (x.y / D + 1)^3, the mean over random subsets of at most `most` vectors, as in
    clean-fid. Of unlike sets it is above zero, of like sets zero on average, so slightly below at times.
    Raises MetricError as `frechet_distance` does."""
    x, y = _sets(a, b)
    size, rng = min(len(x), len(y), most), np.random.default_rng(seed)
    if subsets < 1 or size < 2:
        raise MetricError(
            f"{subsets} subsets of {size} vectors: there has to be one of two at least."
        )
    values = []
    for _ in range(subsets):
        u, v = (s[rng.choice(len(s), size, replace=False)] for s in (x, y))
        alike = _kernel(u, u) + _kernel(v, v)
        unbiased = (alike.sum() - np.trace(alike)) / (size * (size - 1))
        values.append(unbiased - 2 * _kernel(u, v).mean())
    return float(np.mean(values))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _sets(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    x, y = (
        np.asarray(s.detach().cpu() if isinstance(s, Tensor) else s, np.float64) for s in (a, b)
    )
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise MetricError(
            f"Two sets of vectors are (N, D) and (M, D), two at least in each, not {x.shape} and {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise MetricError(
            "A set holds vectors that are not finite: look at the pictures they were made of."
        )
    return x, y


# --- The networks that judge


class JudgeFeatures:
    """The hidden states of the embedded judge, from its first convolutions to its last."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.judge = Judge(device)

    def __call__(self, images: Tensor) -> Layers:
        """(N, 3, H, W) in [-1, 1] to a list of (N, C, h, w)."""
        pixels = self.judge.preprocess(images.to(self.judge.device))
        return list(
            self.judge.network.resnet(pixel_values=pixels, output_hidden_states=True).hidden_states
        )

    @torch.no_grad()
    def embed(self, images: Iterable[Tensor]) -> Tensor:
        """Images (3, H, W) in [-1, 1], of any sizes, to (N, D) on the CPU: the last layer's mean over positions."""
        return torch.stack([self(image[None])[-1].mean(dim=(2, 3))[0].cpu() for image in images])


class FeatureDistance:
    """The perceptual distance on any features (Zhang et al. 2018, equation 1, all channels weighing the same): the sum
    over layers of the mean over positions of |f(x) - f(y)|^2, f of length 1 at each position."""

    def __init__(self, features: Callable[[Tensor], Layers]) -> None:
        self.features = features

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two batches (N, 3, H, W) in [-1, 1] to (N,)."""
        if x.shape != y.shape:
            raise MetricError(
                f"Two batches of one shape, not {tuple(x.shape)} and {tuple(y.shape)}."
            )
        pairs = zip(self.features(x), self.features(y), strict=True)
        shares = [
            (F.normalize(f, dim=1) - F.normalize(g, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
            for f, g in pairs
        ]
        return torch.stack(shares).sum(dim=0)


@dataclass
class Networks:
    """What the figures are worked out with: a perceptual distance, the features of its layers, and vectors of images.
    `name` says whose they are, to stand beside the figures."""

    name: str
    distance: Callable[[Tensor, Tensor], Tensor]
    features: Callable[[Tensor], Layers]
    embed: Callable[[Iterable[Tensor]], Tensor]
    clip: Clip


def find_networks(published: bool = False, device: str | torch.device = "cpu") -> Networks:
    """The embedded judge with the embedded CLIP, or the published networks: LPIPS on AlexNet (what guides is on VGG),
    and OpenAI's CLIP, whose vectors of images give CLIP-FID. Raises CourseError if those cannot be had."""
    if not published:
        judge = JudgeFeatures(device)
        return Networks("judge", FeatureDistance(judge), judge, judge.embed, Clip(device=device))
    alex = published_lpips("alex", device)
    clip = Clip(published=True, device=device)

    @torch.no_grad()
    def embed(images: Iterable[Tensor]) -> Tensor:
        return torch.cat([clip.images(image[None]).cpu() for image in images])

    def features(images: Tensor) -> Layers:
        return list(alex.net(alex.scaling_layer(images)))

    return Networks("LPIPS AlexNet, CLIP ViT-B/32", alex, features, embed, clip)
