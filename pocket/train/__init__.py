"""Training, stage by stage: `python -m pocket.train STAGE`. common.py holds the loop that all stages share."""
