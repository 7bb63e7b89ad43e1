"""The laboratory of the study: ways to decide how deep rows run, tried in PyTorch.

Everything is read off pooled streams. What serves is `skipserve.routing` and `skipserve.graph`, and
nothing here is part of it: signals beside the served ones, a guard at one depth, heads fitted by
L-BFGS and both policies can be compared on networks trained in a minute, without exporting any.
"""
