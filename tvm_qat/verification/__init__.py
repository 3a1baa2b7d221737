"""Does the integer code mean what training meant? Evaluation of modules, stage by stage."""
