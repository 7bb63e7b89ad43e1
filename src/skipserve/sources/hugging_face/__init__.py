"""Hugging Face folders as sources, one module for each family of tasks."""
