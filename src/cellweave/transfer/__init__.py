"""Models in and out of TF1 checkpoints: from names to modules, and back."""

from cellweave.transfer._convert import Conversion as Conversion
from cellweave.transfer._convert import convert_tf1 as convert_tf1
from cellweave.transfer._inspect import InspectedPart as InspectedPart
from cellweave.transfer._inspect import InspectedVariable as InspectedVariable
from cellweave.transfer._inspect import Inspection as Inspection
from cellweave.transfer._inspect import inspect_tf1 as inspect_tf1
from cellweave.transfer._load import load_tf1 as load_tf1
from cellweave.transfer._report import LeftRow as LeftRow
from cellweave.transfer._report import LoadedRow as LoadedRow
from cellweave.transfer._report import LoadReport as LoadReport
from cellweave.transfer._report import MissingRow as MissingRow
from cellweave.transfer._save import save_tf1 as save_tf1
