"""The router: signals, guard, the routed network, proposing and certifying thresholds."""
