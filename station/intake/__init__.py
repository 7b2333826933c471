"""Intake: what comes in from the hospital, pseudonymised and handed over one way; identified data stay here."""
