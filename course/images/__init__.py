"""Loading, showing and writing images: grids, conditions, video clips and panoramas."""
