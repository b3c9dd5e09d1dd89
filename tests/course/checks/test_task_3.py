"""The checks of task 3: right work passes, and each usual mistake gets its advice."""

import torch

from course.checks import task_3 as checks
from tests.course.checks.helpers import (
    assert_advice,
)


def test_the_text_embedding_of_task_3_and_its_mistakes(model, pipe, capsys):
    def embed(batch=0, encode=True, **options):
        settings = {
            "padding": "max_length",
            "max_length": model.text_length,
            "truncation": True,
        } | options

        @torch.no_grad()
        def function(text):
            ids = model.tokenizer(text, return_tensors="pt", **settings).input_ids
            return (pipe.text_encoder(ids)[0] if encode else ids)[batch]

        return function

    check = lambda function: checks.prompt_embedding(function, model, pipe.text_encoder)
    check(embed())
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda text: ..., "returns is still empty"),
        (lambda text: [1.0], "is a list"),
        (embed(encode=False), "Those are the tokens"),
        (embed(batch=slice(None)), "batch of one"),
        (embed(padding=False), "rows of 77 tokens"),
        (embed(max_length=30), r"of shape \(77, 16\)"),
        (lambda text: embed()("a car"), "not the text encoder's vectors of that text"),
        (embed(truncation=False), "truncation=True cuts it"),
        (lambda text: embed()(text).requires_grad_(), "no_grad"),
    ]:
        assert_advice(advice, check, wrong)


def test_the_sds_gradient_and_its_mistakes(capsys):
    checks.sds_gradient(lambda noise_pred, noise, w: w * (noise_pred - noise))
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda e, n, w: ..., "returns is still empty"),
        (lambda e, n, w: 0.5, "is a float"),
        (lambda e, n, w: (w * (e - n)).mean(), "nothing is summed up"),
        (lambda e, n, w: w * (n - e), "opposite sign"),
        (lambda e, n, w: e - n, r"w\(t\) is missing"),
        (lambda e, n, w: w * e, "noise that was added is missing"),
        (lambda e, n, w: w * (e - n) ** 2, "no square"),
        (lambda e, n, w: 2 * w * (e - n), "factor 2"),
        (lambda e, n, w: w * w * (e - n), "counts once"),
        (lambda e, n, w: (e - n) / w, "is a factor"),
        (lambda e, n, w: w * (e + n), "That is not"),
    ]:
        assert_advice(advice, checks.sds_gradient, wrong)


def test_the_sds_loss_and_its_mistakes(capsys):
    checks.sds_loss(lambda x, g: (x * g.detach()).sum() / len(x))
    # The other usual way to write it: half the square of the distance to a constant target.
    checks.sds_loss(lambda x, g: 0.5 * (x - (x - g).detach()).square().sum() / len(x))
    assert capsys.readouterr().out.count("✓") == 2
    for wrong, advice in [
        (lambda x, g: ..., "returns is still empty"),
        (lambda x, g: 1.0, "is a float"),
        (lambda x, g: x * g.detach(), "add them up"),
        (lambda x, g: (x.detach() * g.detach()).sum(), "No gradient reaches"),
        (lambda x, g: -(x * g.detach()).sum() / len(x), "sign is wrong"),
        (lambda x, g: (x * g.detach()).sum(), "number of images"),
        (lambda x, g: (x * g.detach()).mean(), "mean runs over all numbers"),
        (lambda x, g: (x * g).sum() / len(x), "constant here"),
        (lambda x, g: (x * g.detach()).square().sum(), "not the one handed in"),
    ]:
        assert_advice(advice, checks.sds_loss, wrong)
