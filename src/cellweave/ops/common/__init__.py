"""What every recurrence shares: activations, random masks and their streams, calls and records of backends."""

from cellweave.ops.common._activations import activation_function as activation_function
from cellweave.ops.common._activations import activation_name as activation_name
from cellweave.ops.common._activations import as_activation as as_activation
from cellweave.ops.common._calls import LayerCall as LayerCall
from cellweave.ops.common._calls import LayerResult as LayerResult
from cellweave.ops.common._dropout import drop_by_floor as drop_by_floor
from cellweave.ops.common._dropout import drop_by_threshold as drop_by_threshold
from cellweave.ops.common._gate_masks import GateMasks as GateMasks
from cellweave.ops.common._masks import BoundMask as BoundMask
from cellweave.ops.common._masks import apply_mask as apply_mask
from cellweave.ops.common._normalize import normalized as normalized
from cellweave.ops.common._philox import BLOCKS_PER_ELEMENT as BLOCKS_PER_ELEMENT
from cellweave.ops.common._philox import philox_words as philox_words
from cellweave.ops.common._philox import random_uniform as random_uniform
from cellweave.ops.common._records import Backend as Backend
from cellweave.ops.common._records import RunContext as RunContext
from cellweave.ops.common._records import StepFunction as StepFunction
from cellweave.ops.common._records import refuses_nothing as refuses_nothing
from cellweave.ops.common._sequence import Step as Step
from cellweave.ops.common._sequence import reference_sequence as reference_sequence
from cellweave.ops.common._sequence import without_padding as without_padding
from cellweave.ops.common._streams import KINDS as KINDS
from cellweave.ops.common._streams import Site as Site
from cellweave.ops.common._streams import Stream as Stream
from cellweave.ops.common._streams import StreamTable as StreamTable
from cellweave.ops.common._streams import signed64 as signed64
