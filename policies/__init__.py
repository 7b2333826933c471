"""The contract all parties share; imports no other package of ours."""
