"""Compute images: random streams, ONNX Runtime sessions, execution providers, and the known-answer test."""
