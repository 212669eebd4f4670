"""Pictures of events, and the numbers that summarise them."""
