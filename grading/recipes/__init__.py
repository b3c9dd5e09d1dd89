"""The recipes, one module a lesson; each has `RECIPES`, a `Recipes`."""
