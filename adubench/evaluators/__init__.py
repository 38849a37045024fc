"""Protocols, metrics, alignment, the evaluator and its result."""
