"""The towers: the loss and its negatives, in one process and in two, sizes, learning."""

import socket
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from pocket.train import towers
from pocket.train.tokenizer import LENGTH, encode, train_tokenizer
from pocket.world.phrases import words


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer([*words(), *words()])


def batch_of(
    rows: int = 8, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random features (rows, 16), and token ids of which the first two rows are equal."""
    generator = torch.Generator().manual_seed(seed)
    features = [F.normalize(torch.randn(rows, 16, generator=generator), dim=1) for _ in range(3)]
    tokens = torch.randint(0, 900, (rows, LENGTH), generator=generator)
    tokens[1] = tokens[0]
    return (*features, tokens)


def test_keys_tell_captions_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 900, (4000, LENGTH), generator=generator)
    tokens[1::2] = tokens[::2]
    tokens[1::2, 20:22] = tokens[1::2, [21, 20]]  # the same words in another order
    distinct = len(torch.unique(tokens, dim=0))
    assert len(torch.unique(towers.hash_rows(tokens))) == distinct > 3900
    assert torch.equal(towers.hash_rows(tokens[:2]), towers.hash_rows(tokens[:2].clone()))


def test_equal_captions_are_no_negatives() -> None:
    image, text, wrong, tokens = (part[:2] for part in batch_of())
    scale = torch.tensor(5.0)
    result = towers.contrastive_loss(image, text, wrong, tokens, scale)["loss"]
    # Nothing is left to tell apart but each image's wrong caption.
    wanted = F.softplus(scale * (image * wrong).sum(1) - scale * (image * text).sum(1)).mean() / 2
    assert result == pytest.approx(wanted.item(), rel=1e-5)
    tokens[1, 0] += 1
    assert towers.contrastive_loss(image, text, wrong, tokens, scale)["loss"] > result + 0.05


def test_loss_is_clips_with_one_more_caption() -> None:
    image, text, wrong, tokens = batch_of()
    tokens[1, 0] += 1
    result = towers.contrastive_loss(image, text, wrong, tokens, torch.tensor(5.0))
    own = torch.arange(8)
    by_image = torch.stack(
        [5 * torch.stack([*(image[i] @ t for t in text), image[i] @ wrong[i]]) for i in range(8)]
    )
    wanted = (F.cross_entropy(by_image, own) + F.cross_entropy(5 * text @ image.T, own)) / 2
    assert result["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    assert result["pair"] == pytest.approx(
        ((image * text).sum(1) > (image * wrong).sum(1)).float().mean().item()
    )
    assert towers.contrastive_loss(text, text, wrong, tokens, torch.tensor(5.0))["top1"] == 1.0


def _gradients(rank: int, port: int, folder: str) -> None:
    """Save the gradient of the mean loss for one process's half of the batch."""
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    half = slice(4 * rank, 4 * rank + 4)
    image, text, wrong, tokens = (part[half] for part in batch_of())
    image.requires_grad_(), text.requires_grad_()
    loss = towers.contrastive_loss(image, text, wrong, tokens, torch.tensor(10.0))["loss"]
    (loss / 2).backward()  # the average over processes, as DistributedDataParallel takes it
    torch.save((image.grad, text.grad, loss.detach()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.start_processes(
        _gradients, (port, str(tmp_path)), nprocs=2, start_method="fork"
    )
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    image, text, wrong, tokens = batch_of()
    image.requires_grad_(), text.requires_grad_()
    loss = towers.contrastive_loss(image, text, wrong, tokens, torch.tensor(10.0))["loss"]
    loss.backward()
    assert torch.allclose(torch.cat([part[0] for part in parts]), image.grad, atol=1e-6)
    assert torch.allclose(torch.cat([part[1] for part in parts]), text.grad, atol=1e-6)
    assert (parts[0][2] + parts[1][2]).item() / 2 == pytest.approx(loss.item(), rel=1e-5)


def test_sizes_fit_the_budget(tokenizer: CLIPTokenizer) -> None:
    model = towers.build(tokenizer)
    count = [sum(p.numel() for p in part.parameters()) for part in (model, model.text_model)]
    assert sum(count) * 2 <= 20 * 2**20  # the text tower is stored twice
    assert model.config.text_config.hidden_size == towers.WIDTH


def test_text_tower_loads_alone(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    model = towers.build(tokenizer, smoke=True).eval()
    model.save_pretrained(tmp_path)
    ids = torch.from_numpy(encode(tokenizer, ["a red cat", "a mug"])).long()
    alone = CLIPTextModel.from_pretrained(tmp_path)(ids)
    assert torch.equal(alone.last_hidden_state, model.text_model(ids).last_hidden_state)
    # Pooled at the first end token, although the padding is end tokens too.
    end = (ids == tokenizer.eos_token_id).int().argmax(dim=1)
    assert torch.equal(alone.pooler_output, alone.last_hidden_state[torch.arange(2), end])


def test_towers_learn(tokenizer: CLIPTokenizer) -> None:
    torch.manual_seed(1)  # from some weights it takes longer
    model: CLIPModel = towers.build(tokenizer, smoke=True)
    texts, negatives = (
        ["a red cat", "a blue cat", "a mug on mars", "snow"],
        ["a cat", "a mug", "snow", "a red cat"],
    )
    ids, wrong_ids = (
        torch.from_numpy(encode(tokenizer, part)).long() for part in (texts, negatives)
    )
    images = torch.randn(4, 3, towers.SIZE, towers.SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(25):
        out = model(input_ids=torch.cat([ids, wrong_ids]), pixel_values=images)
        text, wrong = out.text_embeds.chunk(2)
        result = towers.contrastive_loss(
            out.image_embeds, text, wrong, ids, model.logit_scale.exp()
        )
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
    assert result["loss"] < 0.1 and result["top1"] == 1.0 and result["pair"] == 1.0
