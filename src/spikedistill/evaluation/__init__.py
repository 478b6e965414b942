"""Evaluations: each takes a network and data and gives named values."""
