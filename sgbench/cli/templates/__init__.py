"""Files to begin a loss, a backbone or a metric with, and their test.

`sgbench new` copies them; in a copy, `my_module` and `MyClass` are replaced by names of a person's choice.
"""
