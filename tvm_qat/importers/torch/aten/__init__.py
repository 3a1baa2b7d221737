"""Converters of float operators: each takes (Writer, Node) and returns an expression or a list of them."""
