"""Bounds on what a checkpoint file may ask for, each with its reason.

A file's own size bounds most counts and lengths; what it cannot bound stands here.
"""

from __future__ import annotations

#: Axes of a tensor: what every NumPy can hold. TensorFlow's own bound is 254; variables have one to five.
MAX_RANK = 32

#: Data files of one checkpoint: their names have five digits for it.
MAX_SHARDS = 99_999

#: Data files open at one time; more are opened again when needed. Systems allow 256 open files or more.
MAX_OPEN_FILES = 64

#: Variables and pieces of variables in one checkpoint. The largest TF1 models had some ten thousand; a table of this
#: many costs about 100 MB of memory, however small the file that claims them.
MAX_ENTRIES = 1 << 18

#: Bytes of one key in a table. TensorFlow's names are paths of scopes, rarely longer than 300 bytes.
MAX_KEY_BYTES = 1 << 14

#: All keys of a table after their shared beginnings are written out, as a multiple of the file's size and a floor below
#: which nothing is refused. A key that shares 300 bytes with its neighbour and stores 20 gives a factor of 15.
MAX_KEY_EXPANSION = 64
KEY_BYTES_FLOOR = 1 << 20

#: How much a Snappy block can grow: a copy of 64 bytes takes 3 bytes, or 2 bytes for one of 11.
MAX_SNAPPY_EXPANSION = 22

#: Bytes of a `checkpoint` state file: a few paths. TensorFlow keeps five by default.
MAX_STATE_FILE_BYTES = 1 << 20

#: Nodes of a graph, those in its functions included. The largest published training graphs have about 200 thousand.
MAX_NODES = 1 << 20

#: Bytes of a graph's constant whose last value stands for many: the file does not pay for these. (One value for all is
#: a view that costs nothing.) Weights are written out; what TensorFlow shortens are masks and tables.
MAX_FILLED_BYTES = 1 << 24
