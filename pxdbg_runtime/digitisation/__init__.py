"""From images to digits: charges, zero suppression, and the compiled kernels."""
