"""A model as a pipeline of diffusers."""

from typing import Any

from course.models.files import loading
from course.models.model import Model


def load_pipeline(model: Model, controlnet: Any = None) -> Any:
    """Return the model as a StableDiffusionPipeline with DDIM, on the model's device.

    With a ControlNet, or a list of several that steer together, it is a
    StableDiffusionControlNetPipeline. Shows no progress bar. Lesson 1.1 teaches these lines. Raises
    ModelError.
    """
    import diffusers

    parts = {} if controlnet is None else {"controlnet": controlnet}
    kind = "StableDiffusionControlNetPipeline" if parts else "StableDiffusionPipeline"
    with loading(model.name):
        parts["scheduler"] = diffusers.DDIMScheduler.from_pretrained(
            model.folder, subfolder="scheduler"
        )
        pipe = getattr(diffusers, kind).from_pretrained(model.folder, dtype=model.dtype, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)
