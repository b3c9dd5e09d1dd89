"""The field, its guidance, its cameras and its training."""
