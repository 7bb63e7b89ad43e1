"""Building: one TOML to one archive, redoing only what changed."""
