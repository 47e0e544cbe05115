"""The texts of the demo, which the models are asked to repeat, so that every answer can be checked."""

from __future__ import annotations

import random

import msgspec

from actors.model_calls.request import ModelRequest

SENTENCES = (
    "The lighthouse keeper counts the ships twice.",
    "A kettle sings before it boils.",
    "Nobody had told the orchestra that the hall was flooded.",
    "My neighbour grows tomatoes on the roof of his van.",
    "Seven bridges cross the river, and none of them is straight.",
    "The baker leaves the first loaf for the night porter.",
    "Rain is expected until the end of the week.",
    "She folded the map so often that the island disappeared.",
    "Please keep the receipt until your parcel has arrived.",
    "The old clock strikes thirteen when it is cold.",
    "Our meeting moves to Thursday, half past nine.",
    "A fox waits at the crossing until the light turns green.",
    "The soup needs salt, patience and a second spoon.",
    "Every spring the mill wheel has to be taught to turn again.",
    "He paints doors, but only those that lead outside.",
    "The last train stops wherever somebody waves.",
    "Two violins and a saw make a surprisingly good trio.",
    "The glacier has its own postcode.",
    "Grandmother wrote her recipes in pencil, to be on the safe side.",
    "The museum lends umbrellas to those who forgot theirs.",
    "An owl lives in the letter box of number twelve.",
    "We tested the parachute from the second floor.",
    "The captain trusts the cook more than the compass.",
    "There is a piano in the forest, and it is in tune.",
    "Invoices are paid on the tenth of each month.",
    "The gardener names his roses after late colleagues.",
    "A good rope is quiet.",
    "The elevator remembers who is afraid of it.",
    "They measured the field with a very long scarf.",
    "Coffee is served until the pot is empty.",
    "The understudy knew every line, and the way to the stage.",
    "On clear nights the radio speaks another language.",
)

LONG_EVERY = 20
"""One text in so many is too long for the smallest context window."""
STREAM_EVERY = 3
"""One text in so many is asked for as a stream."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One text of the demo, which the models repeat; `streams` if the answer is asked for as a stream."""

    id: int
    text: str
    streams: bool

    @property
    def request(self) -> ModelRequest:
        """The text as a request to a model, with room for all of it in the answer."""
        body = {"messages": [{"role": "user", "content": self.text}], "max_tokens": len(self.text) // 4 + 8}
        return ModelRequest(form="chat", body=body)


def make_tasks(count: int, *, seed: int) -> list[Task]:
    """Return `count` tasks of one to three sentences, some of hundreds, each text different from the others.

    >>> make_tasks(2, seed=1) == make_tasks(2, seed=1)
    True
    """
    rng = random.Random(seed)
    tasks: list[Task] = []
    for number in range(1, count + 1):
        sentences = rng.sample(SENTENCES, rng.randint(1, 3))
        if number % LONG_EVERY == 0:
            sentences = rng.choices(SENTENCES, k=40)
        tasks.append(Task(id=number, text=" ".join([f"{number}.", *sentences]), streams=number % STREAM_EVERY == 0))
    return tasks
