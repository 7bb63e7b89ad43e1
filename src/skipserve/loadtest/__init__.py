"""Load tests with an open loop, known answers and a verdict: PASS, FAIL or INVALID."""
