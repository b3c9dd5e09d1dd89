"""A denoiser that sees several views of one object at once, as in MVDream (Shi et al. 2023).

It is a `UNet2DConditionModel` whose self-attention joins the tokens of all views, so that they show
one object, and whose time embedding also gets the camera of each view (arXiv:2308.16512, section
3.2). A batch holds the views of an object one after the other.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

VIEWS = 4  # of an object, that the denoiser sees at once
CAMERA_FEATURES = 8


class JointSelfAttention:
    """Self-attention over the tokens of all views of an object: a processor for diffusers."""

    def __init__(self) -> None:
        self.attend = AttnProcessor2_0()

    def __call__(self, attn: Attention, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Return the attended tokens, (B, N, C), of a batch of B images."""
        joint = hidden_states.unflatten(0, (-1, VIEWS)).flatten(1, 2)
        return self.attend(attn, joint, **kwargs).reshape(hidden_states.shape)


def join_views(unet: UNet2DConditionModel) -> None:
    """Let the self-attention of a denoiser join the views of each object."""
    for block in unet.modules():
        if isinstance(attention := getattr(block, "attn1", None), Attention):
            attention.set_processor(JointSelfAttention())


def camera_features(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Return the features (B, CAMERA_FEATURES) of cameras at angles (B,) in degrees.

    They are the `class_labels` of the denoiser.
    """
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    harmonics = [f(k * a) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
    return torch.stack([*harmonics, torch.sin(e), torch.cos(e)], dim=-1)


def add_cameras(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a copy of a denoiser that also takes cameras, and at first ignores them."""
    copy = UNet2DConditionModel.from_config(
        {name: value for name, value in unet.config.items() if not name.startswith("_")},
        class_embed_type="projection",
        projection_class_embeddings_input_dim=CAMERA_FEATURES,
    )
    copy.load_state_dict(unet.state_dict(), strict=False)
    last = copy.class_embedding.linear_2
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return copy
