"""The program's root command, which each module of the package adds its own to."""

from policies.console import new_app

app = new_app("Run a hospital's station: images stay here; approved trains come to them.")
