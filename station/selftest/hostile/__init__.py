"""The hostile train itself: standard library only, since it runs on a bare copy of this host's Python inside the container.

In its image it is called ``pht_runtime``, the name that the launcher starts. It tells the truth about what it got: it is the
station's own test, and whoever wants to see it fail weakens the walls.
"""
