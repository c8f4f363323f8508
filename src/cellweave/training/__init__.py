"""Training of recurrent language models: what `cellweave train` and `cellweave generate` call."""

from cellweave.training import _packages as _packages
from cellweave.training._engines import EngineComparison as EngineComparison
from cellweave.training._engines import compare_engines as compare_engines
from cellweave.training._environment import describe_environment as describe_environment
from cellweave.training._environment import package_versions as package_versions
from cellweave.training._language_model import LanguageModel as LanguageModel
from cellweave.training._runs import TrainResult as TrainResult
from cellweave.training._runs import resume as resume
from cellweave.training._runs import train as train
from cellweave.training._sampling import generate as generate
from cellweave.training._settings import ModelConfig as ModelConfig
from cellweave.training._settings import TrainConfig as TrainConfig
from cellweave.training._settings import make_config as make_config
from cellweave.training._settings import preset_settings as preset_settings
from cellweave.training._trainer import Progress as Progress
