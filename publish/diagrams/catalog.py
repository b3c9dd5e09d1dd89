"""All diagrams by name."""

from collections.abc import Callable
from pathlib import Path

from course.figures import ROOT
from publish.diagrams import (
    control,
    distillation,
    fields,
    foundations,
    networks,
    panoramas,
    sampling,
)
from publish.diagrams.svg import Canvas

FOLDER = ROOT / "assets" / "diagrams"
DIAGRAMS: dict[str, Callable[[], Canvas]] = {
    diagram.__name__: diagram
    for diagram in (
        foundations.forward_process,
        foundations.noise_schedule,
        foundations.score_field,
        foundations.training_loop,
        networks.latent_diffusion,
        networks.unet,
        networks.cross_attention,
        sampling.sampling_loop,
        sampling.guidance,
        sampling.predictions,
        sampling.ddim_inversion,
        control.controlnet,
        control.zero_convolution,
        panoramas.windows,
        panoramas.ring,
        panoramas.sync,
        fields.ray,
        fields.hash_grid,
        distillation.sds_loop,
        distillation.view_prompts,
        distillation.perp_neg,
    )
}


def diagram_files() -> dict[str, str]:
    """Return the text of each SVG file by its name."""
    return {f"{name}.svg": diagram().to_svg() for name, diagram in DIAGRAMS.items()}


def write_diagrams(folder: Path = FOLDER) -> None:
    """Write each diagram to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in diagram_files().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(f"  {folder.name}/{name}")
