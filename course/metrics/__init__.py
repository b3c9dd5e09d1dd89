"""How good are images: FID, KID, CLIP score, intra-distance, a perceptual distance, the judge."""

from course.metrics.clip import ClipEncoder, clip_score
from course.metrics.errors import MetricError
from course.metrics.judge import Judge
from course.metrics.networks import FeatureDistance, JudgeFeatures, MetricNetworks, load_networks
from course.metrics.panorama import (
    Measurement,
    column_differences,
    crops,
    intra_distance,
    intra_style_loss,
    measure_panorama,
    plot_tradeoff,
    wrap_rank,
)
from course.metrics.perceptual import PerceptualDistance, load_distance, load_lpips
from course.metrics.set_distances import fid, kid

__all__ = [
    "ClipEncoder",
    "FeatureDistance",
    "Judge",
    "JudgeFeatures",
    "Measurement",
    "MetricError",
    "MetricNetworks",
    "PerceptualDistance",
    "clip_score",
    "column_differences",
    "crops",
    "fid",
    "intra_distance",
    "intra_style_loss",
    "kid",
    "load_distance",
    "load_lpips",
    "load_networks",
    "measure_panorama",
    "plot_tradeoff",
    "wrap_rank",
]
