"""int8 export without the 800-image comparison: quantise and keep the graph."""
