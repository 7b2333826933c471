"""The images that trains are built on."""
