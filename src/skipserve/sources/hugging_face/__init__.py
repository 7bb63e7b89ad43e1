"""A Hugging Face folder as a source: one file a family of tasks, and what they share."""
