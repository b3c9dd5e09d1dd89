"""Training, stage by stage: `python -m pocket.train STAGE`.

`run` has the command line and the folders, `loop` the training loop of all stages.
"""
