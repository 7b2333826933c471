"""Merges of patients: what the hospital told, and what follows from it."""
