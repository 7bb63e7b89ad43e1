"""Sources of models. Each becomes a plain graph with its signature, and rows."""
