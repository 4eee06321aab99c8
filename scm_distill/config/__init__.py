"""A recipe: YAML in, frozen pydantic models out. Knows no torch."""

from scm_distill.config.reading import RECIPES, differences, dump, names, parse, path_of, read
from scm_distill.config.schema import Data, Guidance, Lora, Objective, Optimizer, Recipe, Teacher, Train
from scm_distill.config.settings_page import settings_page

__all__ = [
    "RECIPES",
    "Data",
    "Guidance",
    "Lora",
    "Objective",
    "Optimizer",
    "Recipe",
    "Teacher",
    "Train",
    "differences",
    "dump",
    "names",
    "parse",
    "path_of",
    "read",
    "settings_page",
]
