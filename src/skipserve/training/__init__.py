"""Training of the networks that are trained here."""
