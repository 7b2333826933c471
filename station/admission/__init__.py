"""Gathers the facts that a decision rests on, and asks `policies.rules.admission`; every decision is audited."""
