"""`pht-board`: what members of the governance board, its secretary and its freshness witness type.

Each command lies in a module of `policies.board.commands` that parses, calls one use case, and renders; here they become one
program. Exit codes: `policies.errors.ExitCode`.
"""

from policies.board.commands import (
    documents_cli,
    evidence_cli,
    keys_cli,
    profile_cli,
    reading_cli,
    repository_cli,
    requests_cli,
    root_cli,
    secretary_cli,
    signing_cli,
    site_cli,
)
from policies.console import new_app, program

app = new_app("Review, sign, publish and revoke what trains may do; keep the policy repository fresh.")
for commands in (
    keys_cli,
    documents_cli,
    reading_cli,
    requests_cli,
    signing_cli,
    root_cli,
    secretary_cli,
    repository_cli,
    profile_cli,
    evidence_cli,
    site_cli,
):
    commands.add_commands(app)

main = program(app)
