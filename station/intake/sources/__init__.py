"""Where images come from: folders and archives, and the PACS."""
