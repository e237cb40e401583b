"""Compare the settings of a scikit-learn model: every combination, with what they share computed once.

It prints::

    prepared once
    best of 6: depth 4, leaf 1, accuracy 0.95
    one more depth: 3 models fitted, 6 from the cache
"""

import tempfile

from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

from hypernodes import DiskCache, Pipeline, PipelineCallback, node


@node(output_name=("train", "test"))
def prepare(seed: int) -> tuple[tuple, tuple]:
    print("prepared once")
    values, labels = load_iris(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(values, labels, test_size=0.4, random_state=seed)
    return (train_x, train_y), (test_x, test_y)


@node(output_name="model")
def fit(train: tuple, depth: int, leaf: int, seed: int) -> DecisionTreeClassifier:
    model = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, random_state=seed)
    return model.fit(*train)


@node(output_name="accuracy")
def judge(model: DecisionTreeClassifier, test: tuple) -> float:
    return float(model.score(*test))


class Fits(PipelineCallback):
    """Counts the models that are fitted."""

    def __init__(self) -> None:
        self.fitted = 0

    def on_node_end(self, node_id: str, *event: object) -> None:
        del event
        self.fitted += node_id == "fit"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, DiskCache(directory) as cache:
        fits = Fits()
        pipeline = Pipeline([prepare, fit, judge], cache=cache, callbacks=[fits]).bind(seed=0)
        for depths in ([2, 4], [2, 4, 8]):
            fits.fitted = 0
            settings = [(depth, leaf) for depth in depths for leaf in (1, 5, 20)]
            found = pipeline.map(
                {"depth": depths, "leaf": [1, 5, 20]},
                map_over=["depth", "leaf"],
                map_mode="product",
                output_name="accuracy",
            )
            if len(depths) == 2:
                best = max(range(len(settings)), key=found["accuracy"].__getitem__)
                depth, leaf = settings[best]
                accuracy = found["accuracy"][best]
                print(f"best of {len(settings)}: depth {depth}, leaf {leaf}, accuracy {accuracy:.2f}")
            else:
                known = len(settings) - fits.fitted
                print(f"one more depth: {fits.fitted} models fitted, {known} from the cache")


if __name__ == "__main__":
    main()
