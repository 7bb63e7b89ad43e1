"""Certificates that a model earns on its own traffic: what rows prove, and what is in force."""
