"""What requests and answers look like in JSON. The page at /docs is made from this."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

MOST_INPUTS, MOST_CLASSES = 256, 1_000

_Id = Annotated[int, Field(ge=0, lt=2**62)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MOST_CLASSES, strict=True, description="How many classes for each input.")]


class Strict(BaseModel):
    """A misspelt field is an error, not a default."""

    model_config = ConfigDict(extra="forbid")


class RowModel(Strict):
    """A row of the matrix that the run was trained on."""

    ids: list[_Id] = Field(description="Columns: item or feature ids, in [0, number of inputs).")
    values: list[_Number] | None = Field(None, description="A value for each id; ones by default.")


def _form(one: Any) -> str | None:
    kinds: dict[type, str] = {list: "names", str: "text", dict: "row", RowModel: "row"}
    return kinds.get(type(one))


_Input = Annotated[
    Annotated[list[str | int], Tag("names")] | Annotated[str, Tag("text")] | Annotated[RowModel, Tag("row")],
    Discriminator(_form, "input", "Expected a list of names, a text, or an object of ids and values"),
]


class Predict(Strict):
    """Inputs, all of one kind."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"inputs": [["item3", "item8"], ["item1"]], "k": 3},
                {"inputs": ["a text of a document"], "k": 3},
                {"inputs": [{"ids": [3, 8], "values": [1.0, 0.5]}], "k": 3},
            ]
        },
    )

    inputs: list[_Input] = Field(
        min_length=1,
        max_length=MOST_INPUTS,
        description="Names of a user's items for a recommender, a text for a classifier of texts, a text or its words "
        "for a job of words; or rows of ids and values, as the run was trained on.",
    )
    k: Count = 10


class Similar(Strict):
    """Names of classes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"names": ["item3"], "k": 3}]})

    names: list[str] = Field(min_length=1, max_length=MOST_INPUTS)
    k: Count = 10


class Answer(BaseModel):
    """The best classes of an input and their scores, best first; none if nothing is known of the input."""

    classes: list[str]
    scores: list[float]
    unknown: list[str] = Field(description="Names of the input that the run does not know; they were left out.")


class Answers(BaseModel):
    """An answer for each input, in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"answers": [{"classes": ["item7", "item2"], "scores": [0.62, 0.31], "unknown": []}]}]
        }
    )

    answers: list[Answer]


class Problem(BaseModel):
    """What was expected, what was found and what to do."""

    detail: str


class Health(BaseModel):
    """Whether requests are answered, and by what."""

    status: str = Field(description="ready or loading")
    job: str
    classes: int | None
    step: int | None = Field(description="Training steps that the weights have seen.")
    index: dict[str, Any] | None = Field(description="How classes are found; recall@10 against exact.")
    waiting: int = Field(description="Requests that wait.")
