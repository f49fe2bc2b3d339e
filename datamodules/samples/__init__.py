"""Data generated at load time: deterministic by seed, small, and hard enough that learning shows."""
