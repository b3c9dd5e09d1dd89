"""The recipes, one module a lesson; each has `recipes`, a `Recipes`."""
