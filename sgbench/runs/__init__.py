"""From what a person asks for to runs that are done: plan, execution, delivery, maintenance."""
