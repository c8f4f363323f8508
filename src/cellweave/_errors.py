"""The exceptions that cellweave raises.

CellweaveError
├── ShapeError (ValueError)          sizes, ranks or depths disagree
├── ArgumentError (ValueError)       a value is outside what is allowed
├── ArgumentTypeError (TypeError)    a value has the wrong type or structure
├── StructureError (ValueError)      a tensor where a structure is due, or the reverse; a TypeError too
├── DTypeError (TypeError)           dtypes differ where nothing is cast
├── ScopeError (ValueError)          a variable exists already, is missing, or needs a store
├── ModeError (RuntimeError)         the call belongs to graph mode, or to eager mode
├── OrderError (RuntimeError)        a call comes too early, or a second time
├── NodeError (AttributeError)       a layer has no (or no single) recorded node
├── MemberError (AttributeError)     an object lacks a member that was needed
├── MisfitError (RuntimeError)       inputs or a state do not fit, or lie elsewhere
├── BackendError (RuntimeError)      no backend can run what was asked
├── CheckpointError (ValueError)     a checkpoint is damaged or does not fit
└── RunError (RuntimeError)          a training run's folder or data cannot be used

Each message reads `<Where>: expected <what>, got <what>. <What to do>`.
"""


class CellweaveError(Exception):
    """Base of every exception that cellweave raises on purpose."""


class ShapeError(CellweaveError, ValueError):
    """Sizes, ranks or depths disagree."""


class ArgumentError(CellweaveError, ValueError):
    """A value is outside what is allowed."""


class ArgumentTypeError(CellweaveError, TypeError):
    """A value has the wrong type or the wrong structure."""


class StructureError(ArgumentError, ArgumentTypeError):
    """One tensor where a structure is due, or the other way round: TF1 raises now a ValueError, now a TypeError."""


class DTypeError(CellweaveError, TypeError):
    """Dtypes differ where nothing is cast."""


class ScopeError(CellweaveError, ValueError):
    """A variable exists already, is missing, or needs a variable store."""


class ModeError(CellweaveError, RuntimeError):
    """The call belongs to graph mode, or to eager mode."""


class OrderError(CellweaveError, RuntimeError):
    """A call comes too early, or a second time."""


class NodeError(CellweaveError, AttributeError):
    """A layer has no recorded node, or no single one."""


class MemberError(CellweaveError, AttributeError):
    """An object lacks a member that was needed."""


class MisfitError(CellweaveError, RuntimeError):
    """Inputs or a state do not fit a module of `cellweave.nn`, or lie elsewhere: a RuntimeError, as of torch."""


class BackendError(CellweaveError, RuntimeError):
    """No backend can run what was asked."""


class CheckpointError(CellweaveError, ValueError):
    """A checkpoint is damaged or does not fit."""


class RunError(CellweaveError, RuntimeError):
    """A training run's folder or its data cannot be used."""
