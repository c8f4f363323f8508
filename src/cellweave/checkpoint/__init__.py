"""TF1 checkpoints without TensorFlow: names and arrays in, names and arrays out."""

from cellweave.checkpoint._bundle_writer import write_checkpoint as write_checkpoint
from cellweave.checkpoint._checkpoint import Checkpoint as Checkpoint
from cellweave.checkpoint._checkpoint import open_checkpoint as open_checkpoint
from cellweave.checkpoint._eras import ModernName as ModernName
from cellweave.checkpoint._eras import modern_name as modern_name
from cellweave.checkpoint._graph import Graph as Graph
from cellweave.checkpoint._graph import Node as Node
from cellweave.checkpoint._graph import Signature as Signature
from cellweave.checkpoint._graph import read_graph as read_graph
from cellweave.checkpoint._inventory import Inventory as Inventory
from cellweave.checkpoint._inventory import Stored as Stored
from cellweave.checkpoint._inventory import StoredVariable as StoredVariable
from cellweave.checkpoint._inventory import lookup_name as lookup_name
from cellweave.checkpoint._inventory import take_inventory as take_inventory
from cellweave.checkpoint._keys import Key as Key
from cellweave.checkpoint._pieces import even_slices as even_slices
from cellweave.checkpoint._variables import VariableInfo as VariableInfo
