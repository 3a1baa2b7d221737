"""Layout choice: `choose_layout` and what each operator does with a channels-last operand."""
