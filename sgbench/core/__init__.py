"""What every other room stands on: errors, names, files, downloads and random streams."""
