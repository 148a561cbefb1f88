"""What all other packages build on: errors, registries, files, downloads and random streams."""
