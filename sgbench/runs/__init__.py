"""From a sweep's specification to finished runs: planning, execution, delivery, maintenance."""
