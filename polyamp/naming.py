"""Model ids: what they may look like, and fresh ones that can be told apart and spoken."""

import datetime
import random
import re

from polyamp.errors import PolyampError

_ADJECTIVES = (
    "brave bright calm clear clever eager early fair fond gentle glad golden grand happy honest keen kind lively lucky mellow "
    "merry mild modest neat noble patient proud quick quiet rapid silver steady sunny swift warm wise witty"
).split()
_ANIMALS = (
    "badger beaver bison crane cricket deer dolphin falcon ferret finch fox gecko heron ibis koala lark lemur linnet lynx "
    "magpie marten merlin newt ocelot oriole otter owl panda plover puffin raven robin seal stork swan thrush wren"
).split()


def fresh_model_id(model_type: str) -> str:
    """An id of model type, local time and two words, such as `melodic-20261122-141530-brave-otter`."""
    words = random.SystemRandom()  # Not the seeded generator: two runs with one seed are still two runs.
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{model_type.lower()}-{now}-{words.choice(_ADJECTIVES)}-{words.choice(_ANIMALS)}"


def check_model_id(model_id: str) -> str:
    """Returns the id; `PolyampError` if it cannot be the name of a folder on every system."""
    if not re.fullmatch(r"\w[\w.+=@-]{0,127}", model_id):
        raise PolyampError(f"--model_id={model_id}: use letters, digits and . _ + = @ - only, to name the model's folder.")
    return model_id
