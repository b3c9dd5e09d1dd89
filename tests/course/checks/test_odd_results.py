"""No check ends in another error than advice, whatever the result."""

import numpy as np
import pytest
import torch
from PIL import Image

from course.checks import CheckFailed, make_video, task_1_1, task_1_2, task_1_3, task_2, task_3
from tests.course.checks.helpers import (
    FILM,
    changed,
    colored,
    right_noise,
)

ODD = {
    "zero": lambda _: 0,
    "text": lambda _: "text",
    "empty text": lambda _: "",
    "bytes": lambda _: b"\0",
    "empty list": lambda _: [],
    "empty tuple": lambda _: (),
    "dictionary": lambda _: {"x": 1},
    "set": lambda _: {1, 2},
    "class": lambda _: torch.Tensor,
    "function": lambda _: print,
    "image": lambda _: Image.new("L", (3, 2)),
    "array": lambda _: np.zeros((2, 3, 4)),
    "array of texts": lambda _: np.array(["a", "b"]),
    "scalar": lambda _: torch.tensor(1.0),
    "no rows": lambda _: torch.zeros(0, 4),
    "complex": lambda _: torch.ones(2, 3, dtype=torch.complex64),
    "pair": lambda value: (value, value),
    "pair of numbers": lambda _: (1, 2),
    "pair of nothing": lambda _: (None, None),
    "list": lambda value: [value],
    "nested": lambda value: [[value]],
    "as list": lambda value: each_tensor(value, torch.Tensor.tolist),
    "as array": lambda value: each_tensor(value, lambda x: x.detach().cpu().numpy()),
    "as integers": lambda value: each_tensor(value, torch.Tensor.int),
    "as booleans": lambda value: each_tensor(value, torch.Tensor.bool),
    "doubled": lambda value: each_tensor(value, lambda x: x.double() * 2),
    "flat": lambda value: each_tensor(value, torch.Tensor.flatten),
    "one more": lambda value: each_tensor(value, lambda x: x[None]),
    "no axis": lambda value: each_tensor(value, torch.Tensor.sum),
    "not finite": lambda value: each_tensor(value, lambda x: x * float("nan")),
}


def each_tensor(value, change):
    if isinstance(value, torch.Tensor):
        return change(value)
    return (
        type(value)(each_tensor(v, change) for v in value)
        if type(value) in (list, tuple)
        else value
    )


@pytest.mark.parametrize("odd", ODD)
def test_odd_results_end_in_advice(
    odd, lesson, sd, pipe, model, control_lesson, by_edges, photograph, joint, joint_sd
):
    def strange(function):
        return lambda *arguments, **options: ODD[odd](function(*arguments, **options))

    of_model = (by_edges, control_lesson.pipe, control_lesson.model)
    sources = {
        "noise": lambda: task_1_1.noise(strange(right_noise(model)), model),
        "prediction": lambda: task_1_2.prediction(strange(lesson.predict_x0_and_noise)),
        "guidance": lambda: task_1_2.guidance(strange(lesson.guide)),
        "ddim": lambda: task_1_2.ddim(strange(lesson.ddim_step)),
        "attention": lambda: task_1_2.attention(strange(lesson.attention)),
        "text_embeddings": lambda: task_1_2.text_embeddings(
            odd_part("get_text_embeddings", sd, strange), model
        ),
        "decoding": lambda: task_1_2.decoding(odd_part("decode_latents", sd, strange), model),
        "strengths": lambda: task_1_2.strengths(
            ODD[odd]([1.0]), [lesson.SamplingStep(0, *torch.ones(5, 1))]
        ),
        "series": lambda: task_1_1.series(colored, ODD[odd]([colored("a")]), prompt="a", steps=[1]),
        "token": lambda: task_1_1.token(ODD[odd]("hf_x"), model),
        "edges": lambda: task_1_3.edges(strange(control_lesson.canny_edges), photograph),
        "condition": lambda: task_1_3.condition(strange(control_lesson.to_condition), model),
        "residuals": lambda: task_1_3.residuals(
            strange(control_lesson.control_residuals), *of_model
        ),
        "controlled": lambda: task_1_3.controlled(strange(control_lesson.guided_output), *of_model),
        "active": lambda: task_1_3.active(strange(control_lesson.active_controls), by_edges),
        "zero_convolution": lambda: task_1_3.zero_convolution(
            strange(control_lesson.zero_convolution)
        ),
        "control_loss": lambda: task_1_3.control_loss(
            strange(control_lesson.control_loss), *of_model
        ),
        "denoised_windows": lambda: task_2.denoised_windows(strange(joint.denoise_windows)),
        "weight_sum": lambda: task_2.weight_sum(strange(joint.weight_sum), joint.window_views),
        "fusion": lambda: task_2.fusion(strange(joint.fuse), joint.window_views),
        "anchor_image": lambda: task_2.anchor_image(odd_part("predict_anchor", joint_sd, strange)),
        "descent": lambda: task_2.descent(odd_part("descend", joint_sd, strange)),
        "synchronization": lambda: task_2.synchronization(
            odd_part("synchronize", joint_sd, strange)
        ),
        "short_cut": lambda: task_2.short_cut(odd_part("synchronize_x0", joint_sd, strange)),
        "window_placement": lambda: task_2.window_placement(strange(joint.window_starts)),
        "views": lambda: task_2.views(strange(joint.window_views), joint.crop_windows),
        "crops": lambda: task_2.views(joint.window_views, strange(joint.crop_windows)),
        "joint_step": lambda: task_2.joint_step(strange(joint.joint_step), joint.window_views),
        "comparison": lambda: task_2.comparison(strange(joint.compare)),
        "intra_distance": lambda: task_2.intra_distance(strange(joint.intra_distance)),
        "ring_convolution": lambda: task_2.ring_convolution(
            strange(joint.ring_convolution), joint_sd
        ),
        "sds_gradient": lambda: task_3.sds_gradient(strange(lambda e, n, w: w * (e - n))),
        "sds_loss": lambda: task_3.sds_loss(strange(lambda x, g: (x * g.detach()).sum() / len(x))),
        "prompt_embedding": lambda: task_3.prompt_embedding(
            strange(lambda text: torch.zeros(model.text_length, 16)), model, pipe.text_encoder
        ),
        "frame_order": lambda: make_video.frame_order(strange(FILM.in_order)),
        "frame_pairs": lambda: make_video.frame_pairs(strange(FILM.pairs)),
        "hold": lambda: make_video.hold(
            strange(lambda frames, fps, hold: frames + [frames[-1]] * round(hold * fps))
        ),
    }
    failures = {}
    for name, attempt in sources.items():
        try:
            attempt()
        except CheckFailed:
            continue
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"[:150]
    assert failures == {}


def odd_part(name, sd, strange):
    return changed(sd, **{name: lambda self, *arguments: strange(getattr(sd, name))(*arguments)})
