"""Pure loss functions, unreduced."""
