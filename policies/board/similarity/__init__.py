"""Research questions that look alike: by their words in Dutch and English, and by what they ask for."""
