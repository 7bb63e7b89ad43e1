"""Exit-aware fine-tuning of a network that was brought, as a torch module."""
