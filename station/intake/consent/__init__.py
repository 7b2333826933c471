"""The consent register: who agreed to what, per purpose, and what compute gets to know of it."""
