"""What the told tables of a result say: how well a model does, and who the patients are. Works on files that are here already."""
