"""DeepCache and a guidance interval on a small U-Net of diffusers."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from course.errors import RequestError
from course.speed.fewer_calls import deep_cache, guidance_interval


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
    ).eval()


def inputs(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 4, 8, 8, generator=generator)
    return x, 500, torch.randn(batch, 3, 8, generator=generator)


@torch.no_grad()
def test_one_call_in_three_computes_everything(unet):
    plain = [unet(*inputs(seed=i)).sample for i in range(4)]
    with deep_cache(unet, every=3):
        own = [unet(*inputs(seed=i)).sample for i in range(4)]
    assert [torch.equal(a, b) for a, b in zip(plain, own, strict=True)] == [
        True,
        False,
        False,
        True,
    ]
    assert torch.equal(unet(*inputs(seed=1)).sample, plain[1])  # as before


@torch.no_grad()
def test_between_them_only_the_inner_blocks_are_those_of_before(unet):
    x, t, text = inputs()
    others = inputs(seed=1)
    with deep_cache(unet):
        first = unet(x, t, text).sample
        assert torch.equal(unet(x, t, text).sample, first)
        assert not torch.equal(unet(others[0], t, text).sample, first)  # the outer ones compute


@torch.no_grad()
def test_a_batch_of_another_size_has_its_own_results(unet):
    with deep_cache(unet):
        unet(*inputs(batch=2))
        one = unet(*inputs(batch=1)).sample
    assert torch.equal(one, unet(*inputs(batch=1)).sample)


@torch.no_grad()
def test_computes_as_before_after_an_error(unet):
    plain = unet(*inputs()).sample
    with pytest.raises(ZeroDivisionError), deep_cache(unet):
        unet(*inputs(seed=1))
        raise ZeroDivisionError
    assert torch.equal(unet(*inputs()).sample, plain)


@pytest.mark.parametrize("every", [0, 1.5, "often"])
def test_a_wrong_number_is_told(unet, every):
    with pytest.raises(RequestError, match="every"), deep_cache(unet, every):
        pass


@torch.no_grad()
@pytest.mark.parametrize("t", [500, torch.tensor(500)])
def test_beyond_the_interval_both_halves_are_that_of_the_prompt(unet, t):
    x, _, text = inputs(batch=4)
    plain = unet(x, t, text).sample
    with guidance_interval(unet, 600):
        outside = unet(x, t, encoder_hidden_states=text).sample
        as_tuple = unet(x, t, text, return_dict=False)
    torch.testing.assert_close(outside, plain[2:].repeat(2, 1, 1, 1))
    assert len(as_tuple) == 1 and torch.equal(as_tuple[0], outside)
    with guidance_interval(unet, 400, 500):
        assert torch.equal(unet(x, t, text).sample, plain)
    with guidance_interval(unet, 600), deep_cache(unet, 2):
        first = unet(x, t, text).sample
        assert torch.equal(unet(x, t, text).sample, first)
    assert torch.equal(unet(x, t, text).sample, plain)
