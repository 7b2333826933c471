"""Container engines: what is asked of them, what they can enforce, and what they made of it."""
