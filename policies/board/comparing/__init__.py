"""What changed against the version approved before: in the documents, and in the image."""
