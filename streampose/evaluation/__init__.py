"""What `evaluate` and the promotion gate are made of: predictions, truth beside them, measures, tables, pages."""
