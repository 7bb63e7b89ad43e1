"""Is it worth it? What a network does block by block, and what its router saves and risks."""
