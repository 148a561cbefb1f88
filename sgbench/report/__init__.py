"""What a person sees: tables, comparisons, figures, the page and the live display."""
