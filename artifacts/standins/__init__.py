"""Stand-in weights: a background tuned on public marginals of the PXD, and generators trained on it.

They are no physics of the collaboration's: the simulation knows pixels, tracks and a spectrum, not the accelerator.
"""
