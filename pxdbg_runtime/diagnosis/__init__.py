"""Diagnose whether this machine can generate events, and what to install for more."""
