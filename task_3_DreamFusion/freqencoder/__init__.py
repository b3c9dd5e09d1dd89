"""Frequency encoding (NeRF, equation 4)."""

from task_3_DreamFusion.freqencoder.freq import FreqEncoder, freq_encode

__all__ = ["FreqEncoder", "freq_encode"]
