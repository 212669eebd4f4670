"""The event display and the summary figures of digits."""
