"""Faster on the same hardware: CUDA graphs, a frozen autoencoder, native builds."""
