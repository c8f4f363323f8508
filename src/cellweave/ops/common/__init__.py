"""What every recurrence shares: activations, random masks and their streams."""

from cellweave.ops.common._activations import activation_function as activation_function
from cellweave.ops.common._activations import activation_name as activation_name
from cellweave.ops.common._activations import as_activation as as_activation
from cellweave.ops.common._dropout import drop_by_floor as drop_by_floor
from cellweave.ops.common._dropout import drop_by_threshold as drop_by_threshold
from cellweave.ops.common._philox import BLOCKS_PER_ELEMENT as BLOCKS_PER_ELEMENT
from cellweave.ops.common._philox import philox_words as philox_words
from cellweave.ops.common._philox import random_uniform as random_uniform
from cellweave.ops.common._streams import KINDS as KINDS
from cellweave.ops.common._streams import Site as Site
from cellweave.ops.common._streams import Stream as Stream
from cellweave.ops.common._streams import StreamTable as StreamTable
from cellweave.ops.common._streams import signed64 as signed64
