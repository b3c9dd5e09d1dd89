"""How good are images: distances between sets of them, CLIP score, perceptual distance, the judge."""
