"""CLIP: vectors of images and texts, and the CLIP score."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from course.metrics.errors import MetricError, check_finite
from course.metrics.preprocess import Preprocess
from course.models import embedded_folder
from course.models.files import load_network, loading
from course.models.hub import CLIP, fetch

FILES = (
    "config.json",
    "preprocessor_config.json",
    "*.safetensors",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
)


class ClipEncoder:
    """A CLIP model: the embedded one, or of a folder, or OpenAI's. Its vectors have length 1."""

    def __init__(
        self,
        published: bool = False,
        device: str | torch.device = "cpu",
        folder: Path | None = None,
    ) -> None:
        from transformers import AutoTokenizer, CLIPModel

        if published:
            folder = fetch(CLIP, CLIP, list(FILES))
        folder = folder or embedded_folder("clip")
        self.device = torch.device(device)
        self.network = load_network(CLIPModel, folder, "CLIP").to(self.device).eval()
        with loading("CLIP"):
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.preprocess = Preprocess(folder).to(self.device)
        self.text_length = self.network.config.text_config.max_position_embeddings

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the vectors (N, D) of images (N, 3, H, W) in [-1, 1]."""
        pixels = self.preprocess(images.to(self.device))
        pooled = self.network.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.network.visual_projection(pooled), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (N, D) of N texts."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        output = self.network.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        )
        return F.normalize(self.network.text_projection(output.pooler_output), dim=-1)


@torch.no_grad()
def clip_score(images: Tensor, texts: Sequence[str], clip: ClipEncoder) -> float:
    """Return the mean over images of 100 max(cos, 0) of image and text (Hessel et al. 2021).

    The scale is the one in use for generated images. images: (N, 3, H, W) in [-1, 1], one text
    each. Raises MetricError if the numbers differ.
    """
    if len(images) != len(texts) or not len(texts):
        raise MetricError(
            f"There must be one text for each image, got {len(images)} images and {len(texts)} "
            "texts."
        )
    cosines = (clip.encode_images(images.clamp(-1, 1)) * clip.encode_texts(texts)).sum(dim=-1)
    return check_finite(float(100 * cosines.clamp_min(0).mean()), "The CLIP score")
