"""Artifacts and archives: manifest, certificates, model files, versions."""
