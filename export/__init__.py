"""From trained PyTorch generators to graphs that pxdbg_runtime runs. Needs PyTorch; not in the wheel."""
