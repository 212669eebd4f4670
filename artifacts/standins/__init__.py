"""Stand-in weights for the collaboration's, and a simulated background tuned to public marginals of the PXD.

Neither is the collaboration's physics: the simulation models pixels, tracks and a charge spectrum, not the accelerator.
"""
