"""Recording of cross-attention: which pixels look at which tokens of the prompt.

with record_attention(unet) as recorder:
    ...  # call the U-Net
maps = token_maps(recorder, height, width)
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F


def attention(
    query: torch.Tensor,  # (..., n, d)
    key: torch.Tensor,  # (..., L, d)
    value: torch.Tensor,  # (..., L, d)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the results (..., n, d) of attention and its weights (..., n, L).

    Vaswani et al. 2017 (arXiv:1706.03762), equation 1.
    """
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    weights = scores.softmax(dim=-1)
    return weights @ value, weights


Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class AttentionRecorder:
    """An attention processor of diffusers that sums up the weights for the prompts.

    `maps` has, for each number of pixels of a layer, the weights (B, pixels, L), averaged over
    heads and summed over layers and steps. The batch holds negative prompts first, then prompts;
    only the second half is recorded. `attention` computes results and weights. As in
    Prompt-to-Prompt (Hertz et al. 2022, arXiv:2208.01626).
    """

    def __init__(self, attention: Attention = attention) -> None:
        self.attention = attention
        self.maps: dict[int, torch.Tensor] = {}

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,  # (2B, n, c)
        encoder_hidden_states: torch.Tensor | None = None,  # (2B, L, D)
        attention_mask: torch.Tensor | None = None,
        **others: Any,
    ) -> torch.Tensor:
        """Return what the layer `attn` would return by itself."""
        projections = [
            attn.to_q(hidden_states),
            attn.to_k(encoder_hidden_states),
            attn.to_v(encoder_hidden_states),
        ]
        # In float32: the scores of some models are too large for half precision.
        heads = [x.unflatten(-1, (attn.heads, -1)).transpose(1, 2).float() for x in projections]
        result, weights = self.attention(*heads)  # (2B, heads, n, d), (2B, heads, n, L)
        prompt_weights = weights.chunk(2)[1].mean(dim=1)  # (B, n, L)
        pixels = prompt_weights.shape[1]
        self.maps[pixels] = self.maps.get(pixels, 0) + prompt_weights
        result = result.transpose(1, 2).flatten(2).to(hidden_states.dtype)  # (2B, n, heads d)
        output: torch.Tensor = attn.to_out[1](attn.to_out[0](result))
        return output


@contextlib.contextmanager
def record_attention(unet: Any, attention: Attention = attention) -> Iterator[AttentionRecorder]:
    """Within this block all cross-attention of a U-Net of diffusers goes through a recorder."""
    processors = unet.attn_processors
    recorder = AttentionRecorder(attention)
    # "attn2" names the cross-attention of a block, "attn1" its self-attention.
    unet.set_attn_processor(
        {name: recorder if "attn2" in name else own for name, own in processors.items()}
    )
    try:
        yield recorder
    finally:
        unet.set_attn_processor(processors)


def token_maps(recorder: AttentionRecorder, height: int, width: int) -> torch.Tensor:
    """Return the attention of each pixel of latents to each token, (B, L, height, width).

    Sums the maps of all layers, each enlarged to the size of the latents.
    """
    total = torch.zeros(())
    for pixels, weights in recorder.maps.items():
        # Each level of the U-Net halves the sides, rounded up.
        sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(8)]
        size = next(size for size in sizes if size[0] * size[1] == pixels)
        small = weights.transpose(1, 2).reshape(*weights.shape[::2], *size)  # (B, L, h', w')
        total = total.to(small) + F.interpolate(small, (height, width), mode="bilinear")
    return total


def word_token_indices(tokenizer: Any, prompt: str, max_length: int) -> list[tuple[str, list[int]]]:
    """Return the words of a prompt, each with the indices of its tokens: [("a", [1]), ...].

    `tokenizer` is CLIP's, where "</w>" ends a word. Tokens beyond `max_length` are cut off.
    """
    words: list[tuple[str, list[int]]] = []
    ids = tokenizer(prompt, truncation=True, max_length=max_length).input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids)[1:-1]
    for index, token in enumerate(tokens, start=1):
        if not words or words[-1][0].endswith("</w>"):
            words.append(("", []))
        word, indices = words[-1]
        words[-1] = (word + token, [*indices, index])
    return [(word.removesuffix("</w>"), indices) for word, indices in words]
