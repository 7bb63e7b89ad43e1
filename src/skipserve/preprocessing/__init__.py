"""Preprocessing: what turns a text or a picture into the tensors that a network takes."""
