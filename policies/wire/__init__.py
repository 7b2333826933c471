"""Messages and arrays on the wire: what crosses between parties, and how it is read under ceilings."""
