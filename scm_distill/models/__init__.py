"""Networks in TrigFlow form, what makes stock ones distillable, and averages and adapters of their weights."""
