"""The command lines of `pht-board`: each module parses, calls one use case, and renders."""
