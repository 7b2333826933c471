"""What runs inside a train's container: takes the station's requests from a Unix socket and answers them.

It imports flwr, numpy and safetensors and nothing of the project around it, and it is not trusted by the station: every
reply is read under ceilings and goes through the egress guard, whoever wrote it.
"""
