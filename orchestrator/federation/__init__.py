"""Drives accepted orders through Flower: the SuperLink, the run worker, the ServerApp and its rounds.

Imports nothing here: whoever reads an order's progress needs no Flower.
"""
