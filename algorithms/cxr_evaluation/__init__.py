"""Evaluates a chest radiograph model on patients it never saw."""
