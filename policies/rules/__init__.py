"""The rules that decide: pure functions from documents and facts to a decision."""
