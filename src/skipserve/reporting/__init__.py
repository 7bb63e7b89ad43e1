"""Reports: what a network does block by block, and what its router saves and risks."""
