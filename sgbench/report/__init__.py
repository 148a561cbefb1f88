"""What a person sees: tables and the live display, each a function of what it is given."""
