"""Fetch checkpoints from Belle II's conditions database: from a global tag to a verified file in the local cache."""
