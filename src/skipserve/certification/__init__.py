"""Certification: bounds on how often skipping changes an answer, for the served files."""
