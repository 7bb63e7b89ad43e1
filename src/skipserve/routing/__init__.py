"""The router: features, heads, signals, guards, placing of exits, and thresholds."""
