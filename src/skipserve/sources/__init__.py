"""Sources: what a model comes from. Each becomes a plain graph with its signature, and rows."""
