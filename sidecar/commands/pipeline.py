"""The walk over a pipeline and everything nested in it."""

from dataclasses import replace

from sidecar.commands.draft import Draft
from sidecar.commands.place import Place
from sidecar.commands.pointer import below
from sidecar.commands.refusals import malformed
from sidecar.commands.stages import STAGES
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonValue


def walk(draft: Draft, pipeline: JsonValue, place: Place, at: str) -> None:
    """Write into the draft what every stage touches, in the order of reading.

    Depth is bounded before (``expressions.MAX_DEPTH``), so the walk may recurse.

    Raises:
        CommandNotDerivable: a stage that is not an object with exactly one key, or not in the table, or that its rule
            refuses. One key per stage removes the class of attacks in which two readers pick different keys
            (reference, section 2.5).
    """
    if not isinstance(pipeline, list):
        raise malformed(at, "a list of stages")
    for index, stage in enumerate(pipeline):
        here = f"{at}/{index}"
        if not isinstance(stage, dict) or len(stage) != 1:
            raise CommandNotDerivable("stage_form", "A stage is an object with exactly one key.", here)
        [(name, spec)] = stage.items()
        rule = STAGES.get(name)
        if rule is None:
            raise CommandNotDerivable("unknown_stage", f"The stage {name[:64]} is not known.", below(here, name))
        draft.enter_stage(name, here)
        draft.fields.sizes, draft.fields.repeated = place.flow.sizes, place.flow.documents
        path = draft.path = (*place.path, index, name)
        if index and name != "$graphLookup":
            inner = rule(draft, place, spec, f"{here}/{name}")
        else:
            with draft.fields.reading() as read:
                inner = rule(draft, place, spec, f"{here}/{name}")
            draft.looks[path] = read.distinct
        for nested in inner:
            with draft.nesting(nested.at):
                inside = replace(nested.place, path=(*path, *nested.steps))
                walk(draft, nested.pipeline, inside, nested.at)
            if nested.then is not None:
                nested.then(nested.place.flow)
