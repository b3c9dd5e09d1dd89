"""The making of the embedded model: the world it is drawn from, its training, its evaluation, its weights."""
