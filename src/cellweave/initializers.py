"""Starting values of variables, under TF1's names; each is called as `initializer(shape, dtype)`."""

from cellweave.scopes._initializers import Constant as Constant
from cellweave.scopes._initializers import GlorotNormal as GlorotNormal
from cellweave.scopes._initializers import GlorotUniform as GlorotUniform
from cellweave.scopes._initializers import Identity as Identity
from cellweave.scopes._initializers import Ones as Ones
from cellweave.scopes._initializers import Orthogonal as Orthogonal
from cellweave.scopes._initializers import RandomNormal as RandomNormal
from cellweave.scopes._initializers import RandomUniform as RandomUniform
from cellweave.scopes._initializers import TruncatedNormal as TruncatedNormal
from cellweave.scopes._initializers import VarianceScaling as VarianceScaling
from cellweave.scopes._initializers import Zeros as Zeros
from cellweave.scopes._initializers import constant_initializer as constant_initializer
from cellweave.scopes._initializers import deserialize as deserialize
from cellweave.scopes._initializers import glorot_normal_initializer as glorot_normal_initializer
from cellweave.scopes._initializers import glorot_uniform_initializer as glorot_uniform_initializer
from cellweave.scopes._initializers import identity_initializer as identity_initializer
from cellweave.scopes._initializers import ones_initializer as ones_initializer
from cellweave.scopes._initializers import orthogonal_initializer as orthogonal_initializer
from cellweave.scopes._initializers import random_normal_initializer as random_normal_initializer
from cellweave.scopes._initializers import random_uniform_initializer as random_uniform_initializer
from cellweave.scopes._initializers import serialize as serialize
from cellweave.scopes._initializers import truncated_normal_initializer as truncated_normal_initializer
from cellweave.scopes._initializers import variance_scaling_initializer as variance_scaling_initializer
from cellweave.scopes._initializers import zeros_initializer as zeros_initializer
