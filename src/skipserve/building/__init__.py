"""Building: one build file to one archive; only what changed is redone."""
