"""Groups of commands of `pht-orchestrator`; each module parses, calls one use case, renders."""
