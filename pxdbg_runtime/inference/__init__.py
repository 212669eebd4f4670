"""From random numbers to images: latents, ONNX Runtime sessions, execution providers, and the test that they compute rightly."""
