"""All diagrams by name."""

from collections.abc import Callable
from pathlib import Path

from course.figures import ROOT
from publish.diagrams import control, distillation, foundations, networks, panoramas, sampling
from publish.diagrams.svg import Canvas

FOLDER = ROOT / "assets" / "diagrams"
DIAGRAMS: dict[str, Callable[[], Canvas]] = {
    diagram.__name__: diagram
    for diagram in (
        networks.latent_diffusion,
        foundations.noise_schedule,
        sampling.sampling_loop,
        sampling.guidance,
        sampling.predictions,
        control.controlnet,
        panoramas.windows,
        distillation.sds_loop,
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
