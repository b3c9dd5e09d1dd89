"""Diffusion as lesson 1.2 teaches it, to import: timesteps, steps, predictions, guidance."""
