"""What a board is given and what it writes: trains and policies read, drafts, schemas, what is listed, in words."""
