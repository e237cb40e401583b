"""Evaluate a search: a pipeline for one question, nested in one for all questions and several settings.

It prints::

    k=1  recall 0.75
    k=2  recall 1.00
    k=3  recall 1.00
    missed with k=1: ['count the words of a text']
"""

from hypernodes import HyperNodesEngine, Pipeline, node

PASSAGES = {
    "csv": "rows of a table are written to a file with commas",
    "json": "values of a file are read and written as json",
    "time": "parse and format a date and a time",
    "text": "count and wrap the lines of a text",
    "collections": "count things, as the words of a document",
    "pathlib": "paths of a file and of a directory",
}
QUESTIONS = {
    "write a table to a file": "csv",
    "parse a date": "time",
    "count the words of a text": "collections",
    "the directory of a path": "pathlib",
}
COMMON = {"a", "and", "of", "the", "to", "as", "are", "with"}


@node(output_name="terms")
def split(question: str) -> set[str]:
    return set(question.split()) - COMMON


@node(output_name="ranked")
def rank(terms: set[str], passages: dict[str, str]) -> list[str]:
    def score(name: str) -> float:
        words = passages[name].replace(",", "").split()
        return len(terms.intersection(words)) / len(words) ** 0.5

    return sorted(passages, key=score, reverse=True)


@node(output_name="is_found")
def judge(ranked: list[str], answer: str, k: int) -> bool:
    return answer in ranked[:k]


@node(output_name="recall")
def average(all_found: list[bool]) -> float:
    return sum(all_found) / len(all_found)


search = Pipeline([split, rank, judge], name="search")
evaluation = Pipeline(
    [
        search.as_node(
            {"questions": "question", "answers": "answer"},
            {"is_found": "all_found"},
            map_over=["questions", "answers"],
        ),
        average,
    ],
    name="evaluation",
)


def main() -> None:
    given = {"questions": list(QUESTIONS), "answers": list(QUESTIONS.values()), "passages": PASSAGES}
    with HyperNodesEngine(map_executor="threaded") as engine:
        found = evaluation.with_engine(engine).map({**given, "k": [1, 2, 3]}, map_over="k")
    for k, recall in enumerate(found["recall"], 1):
        print(f"k={k}  recall {recall:.2f}")
    missed = [
        question for question, is_found in zip(QUESTIONS, found["all_found"][0], strict=True) if not is_found
    ]
    print("missed with k=1:", missed)


if __name__ == "__main__":
    main()
