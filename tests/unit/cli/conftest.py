"""A text and a finished tiny run."""

from helpers.tiny_run_fixtures import curves_drawn_once as curves_drawn_once
from helpers.tiny_run_fixtures import finished as finished
from helpers.tiny_run_fixtures import text_file as text_file
