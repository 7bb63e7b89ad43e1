"""Preprocessing: texts and pictures become the tensors that a network takes."""
