"""Task 3: text to 3D by score distillation."""
