"""Certifying: bounds on what skipping changes, made on the files that serve."""
