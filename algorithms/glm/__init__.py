"""Regressions over hospitals by federated Newton steps: logistic, linear, Poisson, and Cox stratified by station."""
